"""The plan of a layout that is given, not searched for: one that runs already, or that a launcher asks for."""

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Found, SearchResult
from meshwright.planner.plan_schema import Inputs, Plan
from meshwright.planner.planning import assembled, memory_limit_bytes


def plan_of_layout(inputs: Inputs, layout: Layout, *, must_fit: bool = True) -> Plan:
    """Give the plan of a layout under inputs, whose limits and objective don't count: nothing is chosen.

    Raises MissingData, and, where it must fit, Infeasible if the layout needs more memory than the device offers.
    """
    given = inputs.model_copy(update={"job": inputs.job.model_copy(update=_NOTHING_ASKED)})
    job, table = job_of(given, devices=layout.world_size), LayoutTable.of([layout])
    peak_bytes, limit = float(predict_memory(job, table).nvidia_smi_bytes[0]), memory_limit_bytes(given)
    if must_fit and significant_bytes(peak_bytes) > limit:
        raise Infeasible(
            f"the layout needs {peak_bytes / 2**30:.1f} GiB of each device by our model, which offers "
            f"{limit / 2**30:.1f} GiB",
            hint="a smaller --memory-headroom leaves less free, or `meshwright plan` finds a layout that fits",
        )
    step_time_s = significant(float(predict_time(job, table).step_time_s[0]))
    found = Found(layout=layout, step_time_s=step_time_s, peak_bytes=peak_bytes)
    result = SearchResult(
        best=found,
        alternatives=(),
        candidates=1,
        feasible=1,
        rejected={},
        value=step_time_s,
        lower_bound=step_time_s,
    )
    return assembled(given, result, free=None, proof="given")


_NOTHING_ASKED = {
    "objective": Objective.TIME,
    "top": 0,
    "limits": Limits(),
    "time_limit_s": None,
    "slower_by": None,
    "target_time_s": None,
    "target": None,
}
