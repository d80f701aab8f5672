"""A plan's layout and job from arguments of Megatron-LM."""

import re
from dataclasses import replace
from typing import Any

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.emission.megatron.command_line import CommandLine, command_line
from meshwright.planner.emission.megatron.layout_arguments import CONTEXT_METHODS, MODULES, SHARDING
from meshwright.planner.emission.megatron.model_reading import model_of
from meshwright.planner.emission.reading import Known, Reading, replicas, without_even_split
from meshwright.planner.ranks import fits_data_outermost

METHODS = {name.replace("_", ""): method for method, name in CONTEXT_METHODS.items()}
STAGES = {name: stage for stage, name in SHARDING.items()}
RECOMPUTED = {name: module for module, name in MODULES.items()}
# What changes a step, and isn't held by plans.
UNMODELLED = (
    "optimizer-cpu-offload",
    "cpu-offloading-num-layers",
    "fine-grained-activation-offloading",
    "use-torch-fsdp2",
    "moe-expert-capacity-factor",
    "overlap-moe-expert-parallel-comm",
    "delay-wgrad-compute",
    "tp-comm-overlap",
    "exp-avg-dtype",
    "main-grads-dtype",
)


def read(text: str, known: Known) -> Reading:
    """Read arguments, of a script, a list of words or a recipe.

    Raises InputError where one is missing, no number, or more than plans can say.
    """
    given = command_line(text, file=known.file)
    model = model_of(given, file=known.file)
    return Reading(
        layout=_layout(given, known, layers=model.layers, mtp_layers=model.mtp_layers),
        model=model,
        global_batch=given.whole("global-batch-size"),
        sequence_length=given.whole("seq-length"),
        precision=_precision(given),
        recomputed=_recomputed(given, known),
        unmodelled=tuple(f"--{name}" for name in UNMODELLED if name in given),
    )


def _layout(given: CommandLine, known: Known, *, layers: int, mtp_layers: int) -> Layout:
    tensor = given.whole("tensor-model-parallel-size") or 1
    pipeline = given.whole("pipeline-model-parallel-size") or 1
    context = given.whole("context-parallel-size") or 1
    degrees = {"tensor": tensor, "pipeline": pipeline, "context": context}
    data = replicas(known.devices, degrees, file=known.file)
    sizes = _chunks(given, known, layers=layers, pipeline=pipeline, mtp_layers=mtp_layers)
    virtual = len(sizes) // pipeline
    fields: dict[str, Any] = {
        "tensor_parallel": tensor,
        "sequence_parallel": "sequence-parallel" in given and tensor > 1,
        "pipeline_parallel": pipeline,
        "virtual_pipeline": virtual,
        "schedule": Schedule.INTERLEAVED if virtual > 1 else Schedule.ONE_F_ONE_B,
        "context_parallel": context,
        "data_parallel": data,
        "expert_parallel": given.whole("expert-model-parallel-size") or 1,
        "expert_tensor_parallel": _expert_tensor(given, tensor),
        "micro_batch": given.needed("micro-batch-size"),
        **_context(given, known, context),
        **_sharding(given, known, data * context),
        **_recompute(given, known, sizes),
    }
    layout = Layout(**without_even_split(fields, sizes, layers))
    return replace(layout, axis_order=_axis_order(given, known, layout))


def _axis_order(given: CommandLine, known: Known, layout: Layout) -> AxisOrder:
    if "use-tp-pp-dp-mapping" not in given:
        return AxisOrder.PIPELINE_OUTERMOST
    if not fits_data_outermost(layout, has_experts="num-experts" in given):
        raise InputError(
            "plans hold it without context parallelism, and with as many replicas of experts as of the rest",
            file=known.file,
            path="--use-tp-pp-dp-mapping",
        )
    return AxisOrder.DATA_OUTERMOST


def _expert_tensor(given: CommandLine, tensor: int) -> int:
    if "num-experts" not in given:
        return 1
    return given.whole("expert-tensor-parallel-size") or tensor


def _chunks(given: CommandLine, known: Known, *, layers: int, pipeline: int, mtp_layers: int) -> tuple[int, ...]:
    """Give the layers of each chunk in model order."""
    layout = given.text("pipeline-model-parallel-layout")
    if layout is not None:
        return _laid_out(layout, known, layers=layers, pipeline=pipeline, mtp_layers=mtp_layers)
    first = given.whole("decoder-first-pipeline-num-layers")
    last = given.whole("decoder-last-pipeline-num-layers")
    if first is not None or last is not None:
        ends = [size for size in (first, last) if size is not None]
        inner = chunk_sizes(layers - sum(ends), pipeline - len(ends))
        return (*([first] if first else []), *inner, *([last] if last else []))
    virtual = given.whole("num-virtual-stages-per-pipeline-rank")
    each = given.whole("num-layers-per-virtual-pipeline-stage")
    if virtual is None and each is not None and pipeline > 1:
        virtual = layers // (each * pipeline)
    if "account-for-embedding-in-pipeline-split" in given or "account-for-loss-in-pipeline-split" in given:
        return _accounted(given, layers, pipeline * (virtual or 1), known)
    return chunk_sizes(layers, pipeline * (virtual or 1))


def _accounted(given: CommandLine, layers: int, chunks: int, known: Known) -> tuple[int, ...]:
    """Give equal chunks of layers, the embedding and the loss, of which those that are counted count as layers."""
    embedding = int("account-for-embedding-in-pipeline-split" in given)
    loss = int("account-for-loss-in-pipeline-split" in given)
    each, left = divmod(layers + embedding + loss, chunks)
    if left:
        raise InputError(f"{layers} layers, embedding and loss aren't {chunks} equal chunks", file=known.file)
    sizes = [each] * chunks
    sizes[0] -= embedding
    sizes[-1] -= loss
    return tuple(sizes)


def _laid_out(text: str, known: Known, *, layers: int, pipeline: int, mtp_layers: int) -> tuple[int, ...]:
    path = "--pipeline-model-parallel-layout"
    plain = re.sub(r"\(([^()]*)\)\*([0-9]{1,4})", lambda found: found[1] * int(found[2]), text.replace(" ", ""))
    plain = re.sub(r"([EtmL])\*([0-9]{1,5})", lambda found: found[1] * int(found[2]), plain.replace(",", ""))
    if not re.fullmatch(r"[EtmL|]+", plain):
        raise InputError(f"is {text!r:.80}, not a layout of E, t, m, L and |", file=known.file, path=path)
    chunks = plain.split("|")
    sizes = tuple(chunk.count("t") for chunk in chunks)
    if len(sizes) % pipeline or sum(sizes) != layers:
        raise InputError(
            f"holds {sum(sizes)} layers in {len(sizes)} chunks; the model has {layers}, the pipeline {pipeline} stages",
            file=known.file,
            path=path,
        )
    if not chunks[0].startswith("E") or not chunks[-1].endswith("m" * mtp_layers + "L"):
        raise InputError(
            "has embedding, MTP modules or loss elsewhere than at the two ends", file=known.file, path=path
        )
    return sizes


def _context(given: CommandLine, known: Known, context: int) -> dict[str, Any]:
    if context == 1:
        return {}
    names = set(given.texts("cp-comm-type")) or {"p2p"}
    name = names.pop().replace("_", "").lower()
    if names or name not in METHODS:
        raise InputError("must be one method for all layers", file=known.file, path="--cp-comm-type")
    method = METHODS[name]
    inner = given.wholes("hierarchical-context-parallel-sizes")
    return {"context_method": method, "ulysses_parallel": inner[0] if method is ContextMethod.HYBRID and inner else 1}


def _sharding(given: CommandLine, known: Known, ranks: int) -> dict[str, Any]:
    copies = given.whole("num-distributed-optimizer-instances") or 1
    if ranks % copies:
        raise InputError(
            f"{copies} instances don't divide the {ranks} ranks that hold the same parameters",
            file=known.file,
            path="--num-distributed-optimizer-instances",
        )
    if "use-megatron-fsdp" in given:
        strategy = given.text("data-parallel-sharding-strategy") or SHARDING[3]
        stage = STAGES.get(strategy, 0)
    else:
        stage = 1 if "use-distributed-optimizer" in given else 0
    return {"zero_stage": stage, "zero_shard": ranks // copies} if stage else {}


def _recompute(given: CommandLine, known: Known, sizes: tuple[int, ...]) -> dict[str, Any]:
    granularity = given.text("recompute-granularity")
    if granularity == "selective":
        return {"recompute": Recompute.SELECTIVE}
    if granularity is None and "recompute-activations" in given:
        return {"recompute": Recompute.SELECTIVE}
    if granularity is None:
        return {}
    count = given.whole("recompute-num-layers") or 1
    if given.text("recompute-method") == "block":
        return {"recompute": Recompute.FULL, "recompute_layers": None if count >= max(sizes) else count}
    if count > 1:
        raise InputError(
            f"recomputes {count} layers at a time, which plans don't hold",
            file=known.file,
            path="--recompute-num-layers",
            hint="--recompute-method uniform with 1 layer, or block, can be read",
        )
    return {"recompute": Recompute.FULL}


def _recomputed(given: CommandLine, known: Known) -> tuple[RecomputedModule, ...] | None:
    if given.text("recompute-granularity") != "selective":
        return None
    names = given.texts("recompute-modules") or ("core_attn",)
    unknown = [name for name in names if name not in RECOMPUTED]
    if unknown:
        raise InputError(f"plans don't hold recomputation of {unknown[0]}", file=known.file, path="--recompute-modules")
    return tuple(RECOMPUTED[name] for name in names)


def _precision(given: CommandLine) -> Precision:
    if "fp4-format" in given:
        return Precision.NVFP4
    if "fp8-format" in given:
        return Precision.MXFP8 if given.text("fp8-recipe") == "mxfp8" else Precision.FP8
    if "bf16" in given:
        return Precision.BF16
    return Precision.FP16 if "fp16" in given else Precision.FP32
