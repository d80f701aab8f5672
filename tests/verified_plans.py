"""Plans of layouts that no search would choose, for tests of what checks them."""

from functools import cache
from pathlib import Path

from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import ends_of_stage, stage_chunks
from meshwright.planner import Plan, load_plan
from meshwright.planner.job_inputs import job_of
from meshwright.planner.plan_schema import AxisSection, Inputs, LayoutSection, StageSection
from meshwright.planner.planning import digested, memory_limit_bytes, predicted_of
from meshwright.planner.ranks import mesh_axes
from meshwright.planner.targets import unrestricted
from meshwright.planner.verification import Check

GOLDEN = Path(__file__).parent / "golden"
DENSE, MIXTURE = "llama-3.1-8b-on-a-pcie-box", "mixtral-8x7b-on-64-h100"


@cache
def golden_plan(name: str) -> Plan:
    return load_plan(GOLDEN / f"{name}.yaml")


def plan_with(base: Plan, layout: Layout, *, global_batch: int, together: bool = True) -> Plan:
    """Give a plan with another layout, on software that runs any, and without runners-up."""
    stack = unrestricted(base.inputs.stack.entry).model_copy(update={"steps_together": together})
    inputs = Inputs(
        job=base.inputs.job.model_copy(update={"global_batch": global_batch}),
        model=base.inputs.model,
        cluster=base.inputs.cluster,
        device=base.inputs.device,
        stack=base.inputs.stack.model_copy(update={"entry": stack}),
    )
    job = job_of(inputs, devices=layout.world_size)
    devices = base.inputs.cluster.entry.devices
    groups = {name: AxisSection.of(axis) for name, axis in mesh_axes(layout).items()}
    mesh = {"devices": layout.world_size, "idle": devices - layout.world_size, "groups": groups}
    stages = [
        StageSection(
            stage=stage,
            chunks=tuple((chunk[0], chunk[-1]) for chunk in held.layers),
            embedding=ends_of_stage(layout, stage)[0],
            head=ends_of_stage(layout, stage)[1],
        )
        for stage, held in enumerate(stage_chunks(len(job.model.layers), layout, mtp_layers=job.model.mtp_layers))
    ]
    return base.model_copy(
        update={
            "layout": LayoutSection.of(layout),
            "stages": tuple(stages),
            "mesh": base.mesh.model_copy(update=mesh),
            "predicted": predicted_of(job, layout, limit=memory_limit_bytes(inputs)),
            "alternatives": (),
            "inputs": digested(inputs),
        }
    )


def found(checks: tuple[Check, ...]) -> dict[str, list[str]]:
    """Give by check the fields that it found wrong."""
    return {check.name: [failure.path for failure in check.failures] for check in checks if check.failures}
