"""A plan's layout and job from a Python module with a configuration for torchtitan.

The module isn't run: the literal arguments of ParallelismConfig, TrainingConfig and the checkpointing policy are read,
wherever a function builds them.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import FOLDED, chunk_sizes
from meshwright.planner.emission.reading import Known, Reading, needed, replicas, without_even_split
from meshwright.planner.emission.torchtitan.settings import NARROW, SCHEDULES

BY_NAME = {name.lower(): schedule for schedule, name in SCHEDULES.items()}
NARROWING = {name for narrow in NARROW.values() for name in narrow}
POLICIES = {"FullAC": Recompute.FULL, "SelectiveAC": Recompute.SELECTIVE}


def read(text: str, known: Known) -> Reading:
    """Read a module.

    Raises InputError where it isn't Python, builds no ParallelismConfig or several, or has values that aren't literals.
    """
    if known.model is None:
        raise InputError("doesn't tell the model", file=known.file, hint="say it with --model")
    tree = _tree(text, file=known.file)
    parallelism = _fields(tree, "ParallelismConfig", "parallelism", file=known.file)
    training = _fields(tree, "TrainingConfig", "training", file=known.file)
    layers = known.model.layers
    global_batch = training.get("global_batch_size", known.global_batch)
    layout = _layout(tree, parallelism, training, known, layers=layers)
    return Reading(
        layout=layout,
        model=known.model,
        global_batch=global_batch if global_batch != -1 else None,
        sequence_length=training.get("seq_len", known.sequence_length),
        precision=_precision(tree, file=known.file),
        unmodelled=("training.enable_cpu_offload",) if training.get("enable_cpu_offload") else (),
    )


def _tree(text: str, *, file: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"isn't a Python module: {error}", file=file) from None


def _calls(tree: ast.AST, section: str, attribute: str) -> Iterator[ast.Call]:
    """Give the calls of a section's class, and of replace() on the section of another configuration."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        replaces = name == "replace" and node.args and isinstance(node.args[0], ast.Attribute)
        if name == section or (replaces and node.args[0].attr == attribute):  # type: ignore[attr-defined]
            yield node


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _fields(tree: ast.AST, section: str, attribute: str, *, file: str) -> dict[str, Any]:
    calls = list(_calls(tree, section, attribute))
    if len(calls) != 1:
        raise InputError(f"builds {len(calls) or 'no'} {section}, not one", file=file)
    return dict(_literals(calls[0], section, file=file))


def _literals(call: ast.Call, section: str, *, file: str) -> Iterator[tuple[str, Any]]:
    for keyword in call.keywords:
        try:
            yield str(keyword.arg), ast.literal_eval(keyword.value)
        except ValueError:
            raise InputError("isn't a literal value", file=file, path=f"{section}.{keyword.arg}") from None


def _precision(tree: ast.AST, *, file: str) -> Precision:
    """Read the format of the products by what converts them; bf16 where nothing does."""
    used = {_name(node.func.value) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_config(node.func)}
    found = [precision for precision, narrow in NARROW.items() if used & set(narrow)]
    unknown = [name for name in sorted(used) if name.endswith("LinearConverter") and name not in NARROWING]
    if len(found) > 1 or unknown:
        raise InputError("converts products to a format that plans don't hold", file=file, path="converters")
    return found[0] if found else Precision.BF16


def _is_config(function: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(function, ast.Attribute) and function.attr == "Config"


def _layout(
    tree: ast.AST, given: Mapping[str, Any], training: Mapping[str, Any], known: Known, *, layers: int
) -> Layout:
    tensor, context = given.get("tensor_parallel_degree", 1), given.get("context_parallel_degree", 1)
    pipeline = given.get("pipeline_parallel_degree", 1)
    data = replicas(known.devices, {"tensor": tensor, "context": context, "pipeline": pipeline}, file=known.file)
    schedule = _schedule(given, pipeline, file=known.file)
    sizes = _chunks(given, known, layers=layers, pipeline=pipeline, schedule=schedule)
    fields: dict[str, Any] = {
        "tensor_parallel": tensor,
        "sequence_parallel": tensor > 1 and given.get("enable_sequence_parallel", True),
        "context_parallel": context,
        "context_method": ContextMethod.ALL_GATHER if context > 1 else ContextMethod.RING,
        "pipeline_parallel": pipeline,
        "virtual_pipeline": len(sizes) // pipeline,
        "schedule": schedule,
        "data_parallel": data,
        "expert_parallel": given.get("expert_parallel_degree", 1),
        "micro_batch": given.get("pipeline_parallel_microbatch_size", 1)
        if pipeline > 1
        else needed(training.get("local_batch_size"), "local_batch_size", file=known.file),
        **_sharding(given, data, context, pipeline, file=known.file),
        **_recompute(tree, sizes, file=known.file),
    }
    return Layout(**without_even_split(fields, sizes, layers))


def _schedule(given: Mapping[str, Any], pipeline: int, *, file: str) -> Schedule:
    name = given.get("pipeline_parallel_schedule", "1F1B")
    if pipeline == 1:
        return Schedule.ONE_F_ONE_B
    if str(name).lower() not in BY_NAME:
        raise InputError(
            f"is {name!r:.40}, which plans don't hold", file=file, path="parallelism.pipeline_parallel_schedule"
        )
    return BY_NAME[str(name).lower()]


def _chunks(
    given: Mapping[str, Any], known: Known, *, layers: int, pipeline: int, schedule: Schedule
) -> tuple[int, ...]:
    parts = given.get("module_fqns_per_model_part")
    if pipeline == 1:
        return (layers,)
    if parts is not None:
        sizes = tuple(sum(str(name).startswith("layers.") for name in part) for part in parts)
        named = [name for part in parts for name in part if str(name).startswith("layers.")]
        if named != [f"layers.{layer}" for layer in range(layers)] or len(sizes) % pipeline:
            raise InputError(
                f"must hold layers.0 to layers.{layers - 1} in order, in chunks for {pipeline} stages",
                file=known.file,
                path="parallelism.module_fqns_per_model_part",
            )
        return sizes
    virtual = 2 if schedule in (*FOLDED, Schedule.INTERLEAVED) else 1
    each = given.get("pipeline_parallel_layers_per_stage")
    chunks = pipeline * virtual if each is None else -(-layers // each)
    if chunks % pipeline:
        raise InputError(f"{chunks} chunks aren't for {pipeline} stages", file=known.file)
    return chunk_sizes(layers, chunks)


def _sharding(given: Mapping[str, Any], data: int, context: int, pipeline: int, *, file: str) -> dict[str, Any]:
    copies, sharded = given.get("data_parallel_replicate_degree", 1), given.get("data_parallel_shard_degree", -1)
    sharded = data // copies if sharded == -1 else sharded
    if copies * sharded != data:
        raise InputError(
            f"{copies} x {sharded} ranks aren't the {data} that the other degrees leave",
            file=file,
            path="parallelism.data_parallel_shard_degree",
        )
    if sharded * context == 1:
        return {}
    policy = given.get("fsdp_reshard_after_forward", "default")
    keeps = policy == "never" or (policy == "default" and pipeline > 1)
    return {"zero_stage": 2 if keeps else 3, "zero_shard": sharded * context}


def _recompute(tree: ast.AST, sizes: tuple[int, ...], *, file: str) -> dict[str, Any]:
    """Read the policy: of all layers, or of those that ChosenLayersAC names."""
    configs = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_policy(node)]
    if not configs:
        return {}
    owner = configs[0].func.value.id  # type: ignore[attr-defined]
    base = POLICIES.get(owner) or _base_policy(tree)
    chosen = dict(_literals(configs[0], owner, file=file)).get("layers")
    if chosen is None:
        return {"recompute": base}
    firsts = [sum(sizes[:chunk]) for chunk in range(len(sizes))]
    counts = tuple(
        sum(layer in chosen for layer in range(first, first + size)) for first, size in zip(firsts, sizes, strict=True)
    )
    if len(set(counts)) == 1:
        return {"recompute": base, "recompute_layers": counts[0]}
    return {"recompute": base, "recompute_split": counts}


def _is_policy(call: ast.Call) -> bool:
    return _is_config(call.func) and isinstance(call.func.value, ast.Name) and call.func.value.id.endswith("AC")


def _base_policy(tree: ast.AST) -> Recompute:
    names = {_name(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
    return Recompute.SELECTIVE if "SelectiveAC" in names else Recompute.FULL
