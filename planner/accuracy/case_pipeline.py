"""The pipeline of a case: its schedule, chunks a stage, and how it cuts the layers."""

from collections.abc import Iterator

from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.stages import FOLDED, chunk_sizes, stage_chunks
from meshwright.planner.accuracy.case import Case, CaseLayout
from meshwright.planner.layout.rules import STREAMS_FILL

# What the rule for two streams of micro-batches looks at.
STREAM_COLUMNS = ("data_parallel", "micro_batch", "pipeline_parallel", "schedule")


def schedule_of_case(given: CaseLayout) -> Schedule:
    """Give the schedule: as it is said, but that only interleaving and folding have several chunks a stage."""
    if given.schedule in (*FOLDED, Schedule.DUAL_PIPE):
        return given.schedule
    if given.virtual_pipeline > 1:
        return Schedule.INTERLEAVED
    if given.schedule in {None, Schedule.INTERLEAVED}:
        return Schedule.ONE_F_ONE_B
    return given.schedule or Schedule.ONE_F_ONE_B


def virtual_pipeline_of_case(given: CaseLayout) -> int:
    """Give the chunks a stage: as they are said, but two where the schedule folds the model and one isn't meant."""
    if given.schedule in FOLDED and given.virtual_pipeline == 1:
        return 2
    return given.virtual_pipeline


def split_of_case(case: Case) -> tuple[int, ...]:
    """Give the layers of each chunk in model order, () where the case doesn't say.

    What it says is the layers of each chunk; or of each stage, which its chunks share evenly; or of the first and the
    last stage, where the others share the rest evenly.

    Raises InputError where those aren't the model's layers.
    """
    given = case.layout
    if given.first_last_pp_layers is None or given.pipeline_parallel == 1:
        return ()
    said = tuple(int(number) for number in given.first_last_pp_layers.split(","))
    stages, chunks = given.pipeline_parallel, virtual_pipeline_of_case(given)
    if len(said) == stages * chunks:
        return said
    if len(said) == 2:
        said = (said[0], *_shared(case.model.layers - sum(said), stages - 2), said[1])
    if len(said) != stages or any(layers % chunks for layers in said):
        raise InputError(
            f"{given.first_last_pp_layers} layers are not those of {stages} stages of {chunks} chunks",
            path="layout.first_last_pp_layers",
            hint="give the layers of each stage or chunk in order, or of the first and the last stage",
        )
    return tuple(layers // chunks for _ in range(chunks) for layers in said)


def _shared(layers: int, stages: int) -> tuple[int, ...]:
    return chunk_sizes(layers, stages) if stages and layers >= stages else ()


def require_stages(case: Case, layout: Layout) -> None:
    """Raise InputError where the layers of a case can't be dealt to the stages of its layout."""
    try:
        stage_chunks(case.model.layers, layout)
    except ValueError as error:
        raise InputError(str(error), path=f"layout.{_cause(case, layout)}") from None


def with_full_streams(table: LayoutTable, job: Job) -> LayoutTable:
    """Give those of the layouts of a case that have as many micro-batches as their schedule needs, as plans have.

    Raises InputError where none has.
    """
    columns = {name: getattr(table, name) for name in STREAM_COLUMNS}
    kept = STREAMS_FILL.keeps(job, columns)
    if not kept.any():
        micro_batches = int(max(job.global_batch // (table.data_parallel * table.micro_batch)))
        of = "1 micro-batch" if micro_batches == 1 else f"{micro_batches} micro-batches"
        stages = int(table.pipeline_parallel[0])
        raise InputError(
            f"{STREAMS_FILL.reason}; a replica has {of} for {stages} stages",
            path="layout.schedule",
            hint="give a larger batch.global_batch, a smaller batch.micro_batch, fewer stages, or another schedule",
        )
    return table.take(kept)


def _cause(case: Case, layout: Layout) -> str:
    if layout.split:
        return "first_last_pp_layers"
    chunks = layout.pipeline_parallel * layout.virtual_pipeline
    return "virtual_pipeline" if chunks > case.model.layers + 2 else "schedule"


def pipeline_assumptions(given: CaseLayout) -> Iterator[str]:
    """Give what had to be assumed of a case's pipeline, a sentence each."""
    if given.schedule in FOLDED and given.virtual_pipeline == 1:
        yield f"{given.schedule} is taken to have two chunks a stage"
