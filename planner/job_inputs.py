"""From what a user names to the inputs of a plan, and from those to the job that the cost model reads."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import device_named, find_cluster, find_model, looks_like_path, stack_named
from meshwright.catalog.model_entry import ModelEntry, Positions
from meshwright.catalog.overlay import Overlays, overlaid_cluster, overlaid_device, overlaid_stack
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.overlay_file import read_overlay
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.job import Job
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.plan_schema import Embedded, Inputs, JobSection
from meshwright.planner.targets import LAUNCHERS, limits_under, stack_under

OverlayGiven = str | Path | OverlayEntry


def inputs_of(
    model: str | Path | ModelEntry,
    cluster: str | Path | ClusterEntry,
    *,
    stack: str | StackEntry | None = None,
    overlays: Sequence[OverlayGiven] = (),
    **job: object,
) -> Inputs:
    """Resolve a model, a cluster and a stack (by default that of the cluster's device) to their entries.

    Args:
        model: a catalog name, the path of a model file or of a Hugging Face config, or an entry.
        cluster: a catalog name, optionally with its size ("dgx-h100:64"), a path likewise, or an entry.
        stack: a catalog name, or an entry.
        overlays: files of calibrated figures, or entries, to lay over device, cluster and stack; the last counts most.
        job: the fields of JobSection.

    Raises InputError where something isn't found or is out of range.

    """
    asked = validate(JobSection, job, file="")
    if asked.target is not None:
        if stack is not None:
            raise InputError(f"is given beside the target {asked.target}, which has its own", path="stack")
        stack = LAUNCHERS[asked.target].stack
        limits_under(asked.target, asked.limits)
    resolved_model = _model(model)
    _check_positions(resolved_model.entry, asked.sequence_length)
    resolved_cluster, device = _cluster(cluster)
    laid = _read_overlays(overlays, cluster=resolved_cluster.entry, device=device.entry)
    return Inputs(
        job=asked,
        model=resolved_model,
        cluster=_overlaid_cluster(resolved_cluster, laid),
        device=_overlaid_device(device, laid),
        stack=_overlaid_stack(_stack(stack if stack is not None else device.entry.stack), laid),
        overlays=laid,
    )


def _laid(overlays: Sequence[OverlayGiven], inputs: Inputs) -> tuple[OverlayEntry, ...]:
    return _read_overlays(overlays, cluster=inputs.cluster.entry, device=inputs.device.entry)


def _read_overlays(
    overlays: Sequence[OverlayGiven], *, cluster: ClusterEntry, device: DeviceEntry
) -> tuple[OverlayEntry, ...]:
    """Read overlays that may also name the device and the cluster of a plan. Raises InputError."""
    own = (cluster.model_copy(update={"device": device}),)
    return tuple(
        overlay if isinstance(overlay, OverlayEntry) else read_overlay(Path(overlay), own_clusters=own)
        for overlay in overlays
    )


def inputs_today(inputs: Inputs, overlays: Sequence[OverlayGiven] | None = None) -> Inputs:
    """Resolve again what came from the catalog by name; what came from files stays as it is embedded.

    Args:
        inputs: of a plan.
        overlays: to lay over all of them, in place of those that the plan was made with.

    Raises InputError where the catalog no longer has such a name.

    """
    given = _laid(overlays or (), inputs)
    laid = inputs.overlays if overlays is None else given
    cluster, device, stack = inputs.cluster, inputs.device, inputs.stack
    if cluster.from_catalog:
        entry = find_cluster(f"{cluster.entry.name}:{cluster.entry.devices}")
        device_name = entry.device if isinstance(entry.device, str) else entry.device.name
        cluster = Embedded[ClusterEntry](from_catalog=True, entry=entry.model_copy(update={"device": device_name}))
    if device.from_catalog:
        device = _named_device(str(cluster.entry.device))
    if stack.from_catalog:
        stack = _stack(stack.entry.name)
    # What a file gave is embedded with the plan's own overlays laid over it already.
    return Inputs(
        job=inputs.job,
        model=_model(inputs.model.entry.name) if inputs.model.from_catalog else inputs.model,
        cluster=_overlaid_cluster(cluster, laid if cluster.from_catalog else given),
        device=_overlaid_device(device, laid if device.from_catalog else given),
        stack=_overlaid_stack(stack, laid if stack.from_catalog else given),
        overlays=laid,
    )


def inputs_under(inputs: Inputs, overlays: Sequence[OverlayGiven]) -> Inputs:
    """Lay overlays over inputs as they are embedded in a plan. Raises InputError."""
    given = _laid(overlays, inputs)
    return Inputs(
        job=inputs.job,
        model=inputs.model,
        cluster=_overlaid_cluster(inputs.cluster, given),
        device=_overlaid_device(inputs.device, given),
        stack=_overlaid_stack(inputs.stack, given),
        overlays=(*inputs.overlays, *given),
    )


def job_of(inputs: Inputs, *, devices: int | None = None) -> Job:
    """Make the job of the inputs, on so many of the cluster's devices (by default on all).

    Dropout is on where both the software has it on and the model is trained with it; of a target's stack there is what
    the target runs of it.

    Raises MissingData where the device has no peak for the precision.
    """
    entry = inputs.cluster.entry
    update = {"device": inputs.device.entry, "devices": devices or entry.devices}
    stack = stack_under(inputs.job.target, inputs.stack.entry)
    job = Job(
        model=transformer_of(inputs.model.entry),
        cluster=cluster_of(entry.model_copy(update=update)),
        stack=stack.model_copy(update={"dropout": stack.dropout and inputs.model.entry.trains_with_dropout}),
        precision=inputs.job.precision,
        global_batch=inputs.job.global_batch,
        sequence_length=inputs.job.sequence_length,
    )
    job.cluster.device.peak(job.precision)
    return job


def _check_positions(model: ModelEntry, sequence_length: int) -> None:
    if model.positions is Positions.LEARNED and sequence_length > model.max_positions:
        raise InputError(
            f"is {sequence_length}, but {model.name} has learned only {model.max_positions} positions",
            path="sequence_length",
            hint="train shorter sequences, or give the model a larger max_positions in a file of its own",
        )


def _model(model: str | Path | ModelEntry) -> Embedded[ModelEntry]:
    if isinstance(model, ModelEntry):
        return Embedded[ModelEntry](from_catalog=False, entry=model)
    name = _spelt(model, "model")
    return Embedded[ModelEntry](from_catalog=not looks_like_path(name), entry=find_model(name))


def _cluster(cluster: str | Path | ClusterEntry) -> tuple[Embedded[ClusterEntry], Embedded[DeviceEntry]]:
    from_catalog = False
    if not isinstance(cluster, ClusterEntry):
        name = _spelt(cluster, "cluster")
        from_catalog = not (looks_like_path(name) or looks_like_path(name.rpartition(":")[0]))
        cluster = find_cluster(name)
    device = (
        _named_device(cluster.device)
        if isinstance(cluster.device, str)
        else Embedded[DeviceEntry](from_catalog=False, entry=cluster.device)
    )
    plain = cluster.model_copy(update={"device": device.entry.name})
    return Embedded[ClusterEntry](from_catalog=from_catalog, entry=plain), device


def _named_device(name: str) -> Embedded[DeviceEntry]:
    return Embedded[DeviceEntry](from_catalog=True, entry=device_named(name))


def _stack(stack: str | StackEntry) -> Embedded[StackEntry]:
    if isinstance(stack, StackEntry):
        return Embedded[StackEntry](from_catalog=False, entry=stack)
    return Embedded[StackEntry](from_catalog=True, entry=stack_named(_spelt(stack, "stack")))


def _overlaid_cluster(cluster: Embedded[ClusterEntry], overlays: Overlays) -> Embedded[ClusterEntry]:
    return cluster.model_copy(update={"entry": overlaid_cluster(cluster.entry, overlays)})


def _overlaid_device(device: Embedded[DeviceEntry], overlays: Overlays) -> Embedded[DeviceEntry]:
    return device.model_copy(update={"entry": overlaid_device(device.entry, overlays)})


def _overlaid_stack(stack: Embedded[StackEntry], overlays: Overlays) -> Embedded[StackEntry]:
    return stack.model_copy(update={"entry": overlaid_stack(stack.entry, overlays)})


def _spelt(name: object, path: str) -> str:
    """Give a name or path as the catalog reads it: a Path is never mistaken for a name."""
    if isinstance(name, Path):
        return str(name) if looks_like_path(str(name)) else f"./{name}"
    if not isinstance(name, str):
        raise InputError(f"must be a name, a path or an entry, not {name!r:.60}", path=path)
    if not name:
        raise InputError("the name is empty", path=path, hint="`meshwright catalog` lists the names")
    return name
