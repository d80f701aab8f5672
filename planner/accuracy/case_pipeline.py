"""The pipeline of a case: its schedule, chunks a stage, and how it cuts the layers."""

from collections.abc import Iterator

from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import FOLDED, chunk_sizes, stage_chunks
from meshwright.planner.accuracy.case import Case, CaseLayout


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


def _cause(case: Case, layout: Layout) -> str:
    if layout.split:
        return "first_last_pp_layers"
    chunks = layout.pipeline_parallel * layout.virtual_pipeline
    return "virtual_pipeline" if chunks > case.model.layers + 2 else "schedule"


def pipeline_assumptions(given: CaseLayout) -> Iterator[str]:
    """Give what had to be assumed of a case's pipeline, a sentence each."""
    if given.schedule in FOLDED and given.virtual_pipeline == 1:
        yield f"{given.schedule} is taken to have two chunks a stage"
