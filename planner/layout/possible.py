"""What would be legal where limits leave nothing."""

from meshwright.catalog.stack_entry import Splits
from meshwright.costmodels.job import Job
from meshwright.planner.layout.choices import AS_FEW_AS_FIT
from meshwright.planner.layout.limited_fields import EVEN, RECOMPUTED, SPLIT, shown_code
from meshwright.planner.layout.limits import Limits, largest_chunk
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.space import Space, space_of, taken
from meshwright.planner.layout.told import recomputed_layers, told

# Fields that only leaves have are looked at in so many branches: legal values of those don't depend on many degrees.
BRANCHES = 1024
VALUES_SHOWN = 12


def possible_instead(job: Job, limits: Limits) -> str:
    """Say which values a limited field could have, if the other limits stay; empty if none has any."""
    words = [words for field in limits.fields() if (words := _values(job, limits, field))]
    if words:
        return "with the rest as it is, legal would be " + ", or ".join(words)
    return "several limits stand in one another's way: leave out more than one" if len(limits.fields()) > 1 else ""


def _values(job: Job, limits: Limits, field: str) -> str:
    space = space_of(job, limits.without(field))
    branches = space.branches.rows
    leaves = space.leaves(space.twigs(taken(branches, slice(BRANCHES))).rows)
    if not len(leaves):
        return ""
    rows = leaves.rows if field not in branches or len(space.branches) <= BRANCHES else branches
    if field == SPLIT:
        layers = len(job.model.layers)
        is_whole = sum(limits.sizes(layers)) in (0, layers)
        return f"{SPLIT}={EVEN}" if is_whole or job.stack.splits is Splits.EVEN else f"a {SPLIT} of {layers} layers"
    found = sorted(_codes(space, rows, field))
    shown = [shown_code(field, code) for code in found[:VALUES_SHOWN]] + ["..."] * (len(found) > VALUES_SHOWN)
    return f"{field}={'|'.join(shown)}"


def _codes(space: Space, rows: Columns, field: str) -> set[int]:
    if field != RECOMPUTED:
        return {int(code) for code in told(space.job, rows, field)}
    largest = largest_chunk(space.job, space.limits, rows)
    few = largest[rows[RECOMPUTED] == AS_FEW_AS_FIT]
    whole = recomputed_layers(rows, largest)[rows[RECOMPUTED] == 0]
    return {*range(1, int(few.max(initial=1))), *map(int, whole[whole > 0])}
