"""A training log as a measured case: the median of its steady steps, and its peak of memory, beside the job.

Megatron-LM prints the job itself; of other logs, and where those arguments don't tell it wholly, the job comes from a
case without measured values. TorchTitan prints tokens a second and device (torchtitan/components/metrics.py), so that

    step time = global batch x sequence length / (devices x tokens a second and device).
"""

from pathlib import Path

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.names import canonical_name
from meshwright.planner.accuracy.case import Case, Measured
from meshwright.planner.accuracy.case_cluster import machine_named
from meshwright.planner.calibration.megatron_arguments import Arguments, arguments_of
from meshwright.planner.calibration.megatron_job import job_of
from meshwright.planner.calibration.training_steps import Peak, Steady, peak_of, steady_of, steps_of

_CASE_HINT = "give the job in a file of one case, without measured values, with --case"


def parse_training_log(text: str, *, file: str, device: str, case: Case | None = None) -> Case:
    """Make a measured case of the text of a log.

    Args:
        text: the log.
        file: its name, for errors and the case's source.
        device: catalog name of what it ran on.
        case: the job, where the log doesn't tell it wholly; what it says was measured is replaced.

    Raises InputError where the log has too few steps, doesn't tell the job and no case does, or contradicts the case.

    """
    steady = steady_of(steps_of(text, file=file), file=file)
    given = arguments_of(text, file=file)
    if case is not None:
        _require_same(case, given, steady, device=device, file=file)
    elif given is None:
        raise InputError("doesn't print the job that it trains", file=file, hint=_CASE_HINT)
    else:
        case = _told(given, steady, file=file, device=device)
    tokens = case.batch.global_batch * case.model.sequence_length
    peak = peak_of(text, file=file)
    read = {
        "step_time_s": steady.step_time_s(device_tokens=tokens / case.cluster.devices),
        "peak_memory_bytes": peak.bytes if peak else None,
        "peak_memory_kind": peak.kind if peak else None,
        "peak_memory_rank": _rank(peak),
    }
    measured = validate(Measured, read, file=file)
    source = f"{Path(file).name}: median of {steady.steps} steps from line {steady.line} on"
    return case.model_copy(update={"measured": measured, "source": source if source.isprintable() else "a log"})


def _rank(peak: Peak | None) -> str | None:
    return f"rank {peak.rank}" if peak and peak.rank is not None else None


def _told(given: Arguments, steady: Steady, *, file: str, device: str) -> Case:
    """Make the case of the printed arguments; a batch that was still growing is taken as large as it got."""
    machine = machine_named(device)
    job = job_of(given)
    devices = job.pop("devices")
    per_node = min(machine.reference.devices_per_node, devices)
    if steady.global_batch is not None:
        job["batch"]["global_batch"] = steady.global_batch
    name = Path(file).stem
    document = {
        "id": name if 1 <= len(name) <= 200 and name.isprintable() else "log",
        "cluster": {"device": machine.device.name, "devices": devices, "devices_per_node": per_node},
        "inferred": [f"{per_node} devices a node, as in {machine.reference.name}"],
        **job,
    }
    return validate(Case, document, file=file)


def _require_same(case: Case, given: Arguments | None, steady: Steady, *, device: str, file: str) -> None:
    """Raise InputError where the case is of another device, or the log shows that it is of another job."""
    if canonical_name(case.cluster.device) != canonical_name(machine_named(device).device.name):
        raise InputError(
            f"the case is of {case.cluster.device}, and {device} is to be calibrated",
            file=file,
            hint="give the --device of the case",
        )
    pairs = [("batch.global_batch", case.batch.global_batch, steady.global_batch)]
    if given is not None:
        pairs += [
            ("cluster.devices", case.cluster.devices, given.whole("world_size")),
            ("model.layers", case.model.layers, given.whole("num_layers")),
            ("layout.tensor_parallel", case.layout.tensor_parallel, given.whole("tensor_model_parallel_size")),
            ("layout.pipeline_parallel", case.layout.pipeline_parallel, given.whole("pipeline_model_parallel_size")),
        ]
    for path, stated, printed in pairs:
        if printed is not None and stated != printed:
            raise InputError(
                f"the log is of another job than the case: {path} is {printed} in the log and {stated} in the case",
                file=file,
                hint="correct the file given with --case",
            )
