"""A plan's own layouts under other figures, without searching again."""

from collections.abc import Sequence

from meshwright.costmodels.layout import LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import OverlayGiven, inputs_under, job_of
from meshwright.planner.plan_schema import AlternativeSection, Inputs, Plan
from meshwright.planner.planning import digested
from meshwright.planner.replica_batches import predicted_with


def repredict(plan: Plan, overlays: Sequence[OverlayGiven]) -> Plan:
    """Give the plan with the predictions that overlays, laid over the figures it holds, make for the same layouts.

    What its search proved is left as it is, though other layouts may be better under the overlays.

    Raises InputError and MissingData.
    """
    return repredicted(plan, inputs_under(plan.inputs, overlays))


def repredict_as_given(plan: Plan, overlays: Sequence[OverlayGiven]) -> Plan:
    """Do the same, but take the layout as given: what a search proved under other figures bounds nothing under these.

    Raises InputError and MissingData.
    """
    again = repredict(plan, overlays)
    step_time_s = again.predicted.step_time_s
    nothing = {"proof": "given", "lower_bound": step_time_s, "gap": 0.0}
    return again.model_copy(update={"search": again.search.model_copy(update=nothing)})


def repredicted(plan: Plan, inputs: Inputs) -> Plan:
    """Give the plan with the predictions of other inputs for the same layouts. Raises MissingData."""
    predicted = predicted_with(inputs, plan.layout.layout(), plan.replica_batches)
    return plan.model_copy(
        update={
            "inputs": digested(inputs),
            "predicted": predicted,
            "alternatives": tuple(_again(other, inputs, predicted.step_time_s) for other in plan.alternatives),
        }
    )


def _again(other: AlternativeSection, inputs: Inputs, step_time_s: float) -> AlternativeSection:
    layout = other.layout.layout()
    job, table = job_of(inputs, devices=layout.world_size), LayoutTable.of([layout])
    seconds = significant(predict_time(job, table).step_time_s[0])
    return AlternativeSection(
        layout=other.layout,
        step_time_s=seconds,
        slower_by=significant(seconds / step_time_s - 1),
        peak_memory_bytes=significant_bytes(predict_memory(job, table).nvidia_smi_bytes[0]),
    )
