"""What the search counted adds up, and its gap is that between the plan and its bound."""

from math import isclose

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import ROUNDING, Failures, Found


def tally(plan: Plan) -> Found:
    """Check that feasible and rejected candidates are all there are, and that alternatives are slower as they say."""
    search = plan.search
    what = f"{search.feasible:,} feasible and the rejected are {search.candidates:,} candidates"
    return f"{what}; {len(plan.alternatives)} alternatives", _failures(plan)


def _failures(plan: Plan) -> Failures:
    search, step_s = plan.search, plan.predicted.step_time_s
    counted = search.feasible
    for count in search.rejected.values():
        counted += count
    if counted != search.candidates:
        yield "search.candidates", f"is {search.candidates}; feasible and rejected ones are {counted}"
    if (search.proof == "bounded") == (search.gap == 0):
        yield "search.proof", f"is {search.proof}, but the gap is {search.gap}"
    for number, other in enumerate(plan.alternatives):
        slower_by = other.step_time_s / step_s - 1
        if not isclose(slower_by, other.slower_by, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield f"alternatives.{number}.slower_by", f"is {other.slower_by}; the step times make it {slower_by:.9g}"
