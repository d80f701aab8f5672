"""What would be legal where limits leave nothing."""

from meshwright.costmodels.job import Job
from meshwright.planner.layout.limits import Limits, shown_limit
from meshwright.planner.layout.space import space_of, taken

# Fields that only leaves have are looked at in so many branches: legal values of those don't depend on many degrees.
BRANCHES = 1024
VALUES_SHOWN = 12


def possible_instead(job: Job, limits: Limits) -> str:
    """Say which values a limited field could have, if the other limits stay; empty if none has any."""
    words = [words for field in limits.fields() if (words := _values(job, limits.without(field), field))]
    if words:
        return "with the rest as it is, legal would be " + ", or ".join(words)
    return "several limits stand in one another's way: leave out more than one" if len(limits.fields()) > 1 else ""


def _values(job: Job, limits: Limits, field: str) -> str:
    space = space_of(job, limits)
    branches = space.branches.rows
    leaves = space.leaves(space.twigs(taken(branches, slice(BRANCHES))).rows)
    if not len(leaves):
        return ""
    rows = leaves.rows if field not in branches or len(space.branches) <= BRANCHES else branches
    found = sorted({int(code) for code in rows[field]})
    shown = [shown_limit(field, code) for code in found[:VALUES_SHOWN]] + ["..."] * (len(found) > VALUES_SHOWN)
    return f"{field}={'|'.join(shown)}"
