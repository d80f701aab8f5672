"""Plans of launch configurations that exist already: what is run, to be estimated, explained, checked and improved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwright.catalog.document import read_text
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import find_cluster, find_model, stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.names import match_name
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Recompute
from meshwright.planner.emission.accelerate import reading as accelerate
from meshwright.planner.emission.deepspeed import reading as deepspeed
from meshwright.planner.emission.megatron import reading as megatron
from meshwright.planner.emission.reading import Known, Reading, needed
from meshwright.planner.emission.target import EmitTarget
from meshwright.planner.emission.torchtitan import reading as torchtitan
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.job_inputs import OverlayGiven, inputs_of
from meshwright.planner.plan_schema import Plan
from meshwright.planner.planning import plan_of
from meshwright.planner.targets import Target

# What an entry says of itself; models that differ in nothing else are the same.
PROSE = {"name", "source", "published_parameters", "dropout", "experts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How a target's files are read, and the software and the space that they are for."""

    read: Callable[[str, Known], Reading]
    stack: str
    target: Target


SOURCES: Mapping[EmitTarget, Source] = {
    EmitTarget.MEGATRON: Source(read=megatron.read, stack="megatron-core", target=Target.MEGATRON_CORE),
    EmitTarget.TORCHTITAN: Source(read=torchtitan.read, stack="fsdp2", target=Target.TORCHTITAN),
    EmitTarget.DEEPSPEED: Source(read=deepspeed.read, stack="deepspeed-zero3", target=Target.DEEPSPEED),
    EmitTarget.ACCELERATE: Source(read=accelerate.read, stack="fsdp2", target=Target.FSDP2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The plan of a launch configuration; unmodelled: what it sets that changes a step and isn't in the plan."""

    plan: Plan
    unmodelled: tuple[str, ...]


def import_plan(  # noqa: PLR0913 - one argument for each thing that a file may not say
    file: str | Path,
    target: str,
    *,
    cluster: str,
    model: str | None = None,
    global_batch: int | None = None,
    sequence_length: int | None = None,
    micro_batch: int | None = None,
    recompute: str | None = None,
    stack: str | None = None,
    memory_headroom: float = 0.0,
    overlays: Sequence[OverlayGiven] = (),
) -> Imported:
    """Make the plan of a launch configuration, with what its file doesn't say.

    Raises InputError where the file can't be read, says too little, or contradicts what is given; MissingData; and
    Infeasible where by our model the layout doesn't fit.
    """
    source = SOURCES[EmitTarget(match_name(target, map(str, SOURCES), kind="launcher whose files are read"))]
    named = None if model is None else find_model(model)
    known = Known(
        file=str(file),
        devices=find_cluster(cluster).devices,
        model=named,
        global_batch=global_batch,
        sequence_length=sequence_length,
        micro_batch=micro_batch,
        recompute=None
        if recompute is None
        else Recompute(match_name(recompute, map(str, Recompute), kind="recompute")),
    )
    reading = source.read(read_text(Path(file)), known)
    if named is not None:
        _require_same(reading.model, named, file=str(file))
    inputs = inputs_of(
        model or reading.model,
        cluster,
        stack=_stack(stack or source.stack, reading),
        overlays=overlays,
        global_batch=_one(reading.global_batch, global_batch, "global-batch", file=str(file)),
        sequence_length=_one(reading.sequence_length, sequence_length, "sequence-length", file=str(file)),
        precision=reading.precision,
        objective="time",
        top=0,
        memory_headroom=memory_headroom,
    )
    _require_whole(reading, inputs.job.global_batch, file=str(file))
    return Imported(plan=plan_of_layout(inputs, reading.layout), unmodelled=reading.unmodelled)


def improved(plan: Plan, target: str) -> Plan:
    """Give the fastest plan of the same job that the launcher of an imported one runs.

    Raises MissingData, and Infeasible where nothing that it runs fits.
    """
    job = plan.inputs.job.model_copy(update={"target": SOURCES[EmitTarget(target)].target})
    return plan_of(plan.inputs.model_copy(update={"job": job})).plan


def _stack(name: str, reading: Reading) -> str | StackEntry:
    """Give the software, with its selective recomputation of the modules that the file names."""
    entry = stack_named(name)
    if reading.recomputed is None or reading.recomputed == entry.selective_recompute:
        return name
    return entry.model_copy(update={"selective_recompute": reading.recomputed})


def _one(read: int | None, given: int | None, option: str, *, file: str) -> int:
    """Give what the file or the option says. Raises InputError where both do, of two minds, or neither does."""
    if read is not None and given is not None and read != given:
        raise InputError(f"says {read}, --{option} {given}", file=file, hint=f"leave out --{option}")
    return needed(given if read is None else read, option.replace("-", " "), file=file, option=f"--{option}")


def _require_same(read: ModelEntry, named: ModelEntry, *, file: str) -> None:
    """Raise InputError where a file describes another model than the one that is named."""
    one, other = read.model_dump(exclude=PROSE), named.model_dump(exclude=PROSE)
    for name, value in one.items():
        if value != other[name]:
            raise InputError(f"the file says {value}, {named.name} has {other[name]}", file=file, path=f"model.{name}")


def _require_whole(reading: Reading, global_batch: int, *, file: str) -> None:
    layout = reading.layout
    if global_batch % (layout.data_parallel * layout.micro_batch):
        raise InputError(
            f"{global_batch} sequences aren't whole micro-batches of {layout.micro_batch} for {layout.data_parallel} "
            "replicas",
            file=file,
        )
