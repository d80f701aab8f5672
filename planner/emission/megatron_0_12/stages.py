"""How core 0.12 is told of stages that aren't equal: it has no layouts of stages, MindSpeed has lists of layers."""

from collections.abc import Iterator

from meshwright.catalog.schedule import Schedule
from meshwright.planner.emission.megatron.arguments import Arguments
from meshwright.planner.emission.megatron.layout_arguments import layer_counts
from meshwright.planner.emission.megatron_0_12.devices import has_mindspeed
from meshwright.planner.emission.obstacle import Change
from meshwright.planner.plan_schema import Plan


def stage_arguments(plan: Plan) -> Arguments:
    """Give the arguments for the layers of each chunk, of which `can_cut` says that there are some."""
    layout, sizes = plan.layout.layout(), layer_counts(plan)
    stages, chunks = layout.pipeline_parallel, layout.virtual_pipeline
    if stages == 1 or layout.schedule is Schedule.DUAL_PIPE_V:
        return {}
    if len(set(sizes)) == 1:
        return {"num-layers-per-virtual-pipeline-stage": sizes[0]} if chunks > 1 else {}
    if chunks > 1:
        return _interleaved(sizes, stages, chunks)
    if has_mindspeed(plan):
        return {"num-layer-list": ",".join(map(str, sizes))}
    return {"decoder-first-pipeline-num-layers": sizes[0], "decoder-last-pipeline-num-layers": sizes[-1]}


def _interleaved(sizes: tuple[int, ...], stages: int, chunks: int) -> Arguments:
    """Give the layers of each stage's chunks, a list a stage: chunk c of stage s is number c x stages + s."""
    rows = ([sizes[chunk * stages + stage] for chunk in range(chunks)] for stage in range(stages))
    text = ",".join(f"[{','.join(map(str, row))}]" for row in rows)
    # What is said here only counts the chunks; the lists say what is in them.
    return {
        "num-layers-per-virtual-pipeline-stage": sum(sizes) // len(sizes),
        "pipeline-num-transformer-layers": f"[{text}]",
    }


def can_cut(plan: Plan) -> bool:
    """Whether it can be told how the layers are cut.

    Without MindSpeed only the first and the last stage may differ from the others, which need as many layers each.
    Lists of interleaved chunks stand beside an even number of layers a chunk, which their sum must be.
    """
    layout, sizes = plan.layout.layout(), layer_counts(plan)
    if layout.pipeline_parallel == 1 or len(set(sizes)) == 1:
        return True
    if layout.schedule is Schedule.DUAL_PIPE_V or 0 in sizes:
        return False
    if layout.virtual_pipeline > 1:
        return has_mindspeed(plan) and sum(sizes) % len(sizes) == 0
    return has_mindspeed(plan) or len(set(sizes[1:-1])) <= 1


def cuts_by_ends(plan: Plan) -> Iterator[Change]:
    """Give cuts near a plan's whose first and last stage alone differ from the others.

    The others have as many layers as one of them had; the two share what is left in the ratio of what they had.
    """
    layout, sizes = plan.layout.layout(), layer_counts(plan)
    if has_mindspeed(plan) or layout.virtual_pipeline > 1:
        return
    first, last, between = sizes[0], sizes[-1], len(sizes) - 2
    for each in sorted(set(sizes[1:-1]) - {0}):
        left = sum(sizes) - between * each
        before = min(max(round(left * first / ((first + last) or 1)), 1), left - 1)
        if left > 1 and (before, left - before) != (each, each):
            yield {"split": (before, *(each,) * between, left - before)}
