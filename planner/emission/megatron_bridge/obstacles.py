"""What Megatron-Bridge can't run of a plan: what Megatron-LM can't, on whose core it trains, and a little more."""

from collections.abc import Iterator

from meshwright.catalog.model_entry import Positions
from meshwright.planner.emission.megatron.obstacles import obstacles as megatron_obstacles
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.rank_order import pipeline_outermost
from meshwright.planner.plan_schema import Plan


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give all that keeps Megatron-Bridge from running a plan."""
    yield from megatron_obstacles(plan)
    yield from _positions(plan)
    if plan.layout.zero_stage > 1:
        yield from pipeline_outermost(plan.layout.layout())


def _positions(plan: Plan) -> Iterator[Obstacle]:
    """Hold learned positions against its GPT, whose table has a row for each token of a sequence."""
    entry, length = plan.inputs.model.entry, plan.inputs.job.sequence_length
    if entry.positions is Positions.LEARNED and entry.max_positions != length:
        yield Obstacle(
            path="inputs.job.sequence_length",
            feature=f"learns a position for each of {length} tokens of a sequence, not {entry.max_positions}",
        )
