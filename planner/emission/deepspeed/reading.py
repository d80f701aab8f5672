"""A plan's layout and job from a configuration of DeepSpeed."""

from collections.abc import Mapping
from typing import Any

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.document import parse_json
from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.reading import Known, Reading, needed, replicas

# What changes a step, and isn't held by plans.
UNMODELLED = ("zero_optimization.offload_optimizer", "zero_optimization.offload_param", "pipeline", "aio")
# The value that other software replaces before DeepSpeed sees it.
AUTO = "auto"


def read(text: str, known: Known) -> Reading:
    """Read a configuration, whose model, tokens of a sequence and, where they are "auto", batches are told beside it.

    Raises InputError where it isn't one, or says too little.
    """
    document = parse_json(text, file=known.file)
    if not isinstance(document, dict) or not document:
        raise InputError("isn't a configuration of DeepSpeed", file=known.file)
    if known.model is None:
        raise InputError("doesn't tell the model", file=known.file, hint="say it with --model")
    config = Configuration(document, file=known.file)
    tensor = config.whole("tensor_parallel.autotp_size") or config.whole("tensor_parallel.tp.tp_size") or 1
    context = config.whole("sequence_parallel_size") or 1
    data = replicas(known.devices, {"tensor": tensor, "context": context}, file=known.file)
    micro_batch, global_batch = _batch(config, known, data)
    layout = Layout(
        tensor_parallel=tensor,
        context_parallel=context,
        context_method=ContextMethod.ULYSSES if context > 1 else ContextMethod.RING,
        data_parallel=data,
        expert_parallel=config.whole("expert_parallel.autoep_size") or 1,
        micro_batch=micro_batch,
        recompute=Recompute.FULL if config.value("activation_checkpointing") else Recompute.NONE,
        **_sharding(config, data * context),
    )
    return Reading(
        layout=layout,
        model=known.model,
        global_batch=global_batch,
        sequence_length=known.sequence_length,
        precision=_precision(config),
        unmodelled=tuple(path for path in UNMODELLED if config.value(path)),
    )


class Configuration:
    """A document, by dotted path."""

    __slots__ = ("_document", "_file")

    def __init__(self, document: Mapping[str, Any], *, file: str) -> None:
        self._document, self._file = document, file

    def value(self, path: str) -> Any:  # noqa: ANN401 - whatever the file holds
        """Give what is at a path; None where nothing is, or "auto"."""
        found: Any = self._document
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found == AUTO else found

    def whole(self, path: str) -> int | None:
        """Give a whole number from 1; None where nothing is there. Raises InputError where it is something else."""
        found = self.value(path)
        if found is not None and (type(found) is not int or found < 1):
            raise InputError(f"is {found!r:.60}, not a whole number from 1", file=self._file, path=path)
        return found

    def on(self, path: str) -> bool:
        """Tell whether a switch is on. Raises InputError where it is no switch."""
        found = self.value(path)
        if found is not None and not isinstance(found, bool):
            raise InputError(f"is {found!r:.60}, not true or false", file=self._file, path=path)
        return bool(found)


def _batch(config: Configuration, known: Known, data: int) -> tuple[int, int | None]:
    """Give micro-batch and global batch, of which with the accumulation two say the third."""
    micro, whole = config.whole("train_micro_batch_size_per_gpu"), config.whole("train_batch_size")
    accumulated = config.whole("gradient_accumulation_steps")
    if micro is None and whole is not None and accumulated is not None:
        micro, left = divmod(whole, accumulated * data)
        if left or not micro:
            raise InputError(
                f"{whole} sequences aren't {accumulated} micro-batches of {data} replicas",
                file=known.file,
                path="train_batch_size",
            )
    micro = needed(micro or known.micro_batch, "the micro-batch", file=known.file, option="--micro-batch")
    if whole is None and accumulated is not None:
        whole = micro * accumulated * data
    if whole is not None and accumulated is not None and whole != micro * accumulated * data:
        raise InputError(
            f"is {whole}, not {micro} x {accumulated} micro-batches x {data} replicas",
            file=known.file,
            path="train_batch_size",
        )
    return micro, whole


def _sharding(config: Configuration, ranks: int) -> dict[str, Any]:
    stage = config.value("zero_optimization.stage") or 0
    if type(stage) is not int or not 0 <= stage <= 3:
        raise InputError(f"is {stage!r:.40}, not 0 to 3", path="zero_optimization.stage")
    if stage == 0 or ranks == 1:
        return {}
    secondary = config.whole("zero_optimization.zero_hpz_partition_size") or 1
    kept = {"backward_shard": secondary} if 1 < secondary < ranks and stage == 3 else {}
    return {"zero_stage": stage, "zero_shard": ranks, **kept}


def _precision(config: Configuration) -> Precision:
    if config.on("bf16.enabled"):
        return Precision.BF16
    return Precision.FP16 if config.on("fp16.enabled") else Precision.FP32
