"""The layouts that a case may mean: one where it says all, several where it leaves micro-batch or recompute open."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import RECOMPUTES, WIDER_SHARDS, Layout, Recompute
from meshwright.planner.accuracy.case import Case, CaseLayout
from meshwright.planner.accuracy.case_pipeline import (
    pipeline_assumptions,
    require_stages,
    schedule_of_case,
    split_of_case,
    virtual_pipeline_of_case,
)

# How methods of context parallelism are called in launch scripts.
METHOD_NAMES = {
    "p2p": ContextMethod.RING,
    "megatron_cp_algo": ContextMethod.RING,
    "ring": ContextMethod.RING,
    "all_gather": ContextMethod.ALL_GATHER,
    "allgather": ContextMethod.ALL_GATHER,
    "kvallgather_cp_algo": ContextMethod.ALL_GATHER,
    "a2a": ContextMethod.ULYSSES,
    "ulysses_cp_algo": ContextMethod.ULYSSES,
    "ulysses": ContextMethod.ULYSSES,
}
SHARDED_PARAMETERS = 3
# How recomputation's modules are called in launch scripts.
MODULE_WORDS = {
    "core": RecomputedModule.ATTENTION_CORE,
    "core_attn": RecomputedModule.ATTENTION_CORE,
    "norm": RecomputedModule.NORMS,
    "layernorm": RecomputedModule.NORMS,
    "act": RecomputedModule.ACTIVATION,
    "activation": RecomputedModule.ACTIVATION,
    "moe_act": RecomputedModule.ACTIVATION,
    "mla_up_proj": RecomputedModule.LATENT_UP_PROJECTION,
    "mlp": RecomputedModule.MLP,
    "moe": RecomputedModule.EXPERTS,
    "shared_experts": RecomputedModule.SHARED_EXPERTS,
}
# Dispatchers that exist between expert ranks only.
SPREADING = re.compile(r"\b(deep|hybrid)[ _-]?ep\b", re.IGNORECASE)


def layouts_of_case(
    case: Case, *, defers_synchronisation: bool = False, micro_batch_a_stage: bool = False
) -> tuple[tuple[Layout, ...], tuple[str, ...]]:
    """Give the layouts to choose from, and what had to be assumed of them.

    Where recompute is open the layouts go from none to full; where the micro-batch is open it takes the powers of two
    that divide a replica's share of the batch, or is the share of a stage where the software has `micro_batch_a_stage`.
    Where the software `defers_synchronisation`, parameters and gradients of ZeRO-3 may be held whole within a step,
    unless the case says how they are sharded.

    Raises InputError where the degrees don't fit each other, the devices, the batch or the model.
    """
    layout = _degrees(case)
    require_stages(case, layout)
    recomputes = _recomputes(case.layout)
    candidates = tuple(
        replace(shards, recompute=recompute, recompute_layers=_recompute_layers(case), micro_batch=micro_batch)
        for shards in _shards(case.layout, layout, defers_synchronisation=defers_synchronisation)
        for recompute in recomputes
        for micro_batch in _micro_batches(case, layout, a_stage=micro_batch_a_stage)
    )
    return candidates, tuple(_assumptions(case, layout))


def _degrees(case: Case) -> Layout:
    given = case.layout
    data_parallel = _data_parallel(case)
    replicas = data_parallel * given.context_parallel
    expert_parallel = _expert_parallel(case, replicas)
    expert_tensor_parallel = _expert_tensor_parallel(case, replicas, expert_parallel)
    return Layout(
        tensor_parallel=given.tensor_parallel,
        sequence_parallel=given.sequence_parallel,
        context_parallel=given.context_parallel,
        context_method=_context_method(given),
        pipeline_parallel=given.pipeline_parallel,
        virtual_pipeline=virtual_pipeline_of_case(given),
        split=split_of_case(case),
        vocabulary_parallel=bool(given.vocabulary_parallel),
        data_parallel=data_parallel,
        axis_order=_axis_order(case, expert_parallel * expert_tensor_parallel),
        expert_parallel=expert_parallel,
        expert_tensor_parallel=expert_tensor_parallel,
        zero_stage=given.zero_stage,
        zero_shard=_zero_shard(given, replicas),
        gradient_shard=given.gradient_shard_devices,
        parameter_shard=given.parameter_shard_devices,
        backward_shard=given.backward_shard_devices,
        schedule=schedule_of_case(given),
    )


def _data_parallel(case: Case) -> int:
    given = case.layout
    others = given.tensor_parallel * given.context_parallel * given.pipeline_parallel
    devices = case.cluster.devices
    if devices % others or given.data_parallel not in {None, devices // others}:
        product = others * (given.data_parallel or 1)
        raise InputError(
            f"tensor, context, pipeline and data parallelism multiply to {product}, not to cluster.devices {devices}",
            path="layout",
        )
    return devices // others


def _expert_parallel(case: Case, replicas: int) -> int:
    """Give the degree; the widest there can be where a dispatcher is named that one of 1 has no use for."""
    degree, experts = case.layout.expert_parallel, case.model.moe
    if experts is None:
        if degree > 1:
            raise InputError(f"expert parallelism {degree} of a model without experts", path="layout.expert_parallel")
        return degree
    if degree == 1 and _spreading(case) is not None:
        return math.gcd(experts.experts, replicas * case.layout.tensor_parallel)
    if experts.experts % degree:
        raise InputError(
            f"{experts.experts} experts aren't shared evenly by {degree} devices", path="layout.expert_parallel"
        )
    return degree


def _spreading(case: Case) -> str | None:
    """Give the name of the dispatcher between expert ranks that a case has; None beside expert-tensor ranks, too.

    Expert-tensor ranks may exchange tokens by it as well (megatron/core/transformer/moe/token_dispatcher.py).
    """
    given = case.layout
    if case.model.moe is None or (given.expert_tensor_parallel or given.tensor_parallel) > 1:
        return None
    found = SPREADING.search(f"{given.kernel} {given.dispatcher} {case.model.moe.dispatcher}")
    return found[0] if found else None


def _expert_tensor_parallel(case: Case, replicas: int, expert_parallel: int) -> int:
    """Give the degree that is asked for, else Megatron's default, the tensor degree, else 1: the first that fits."""
    given = case.layout
    if case.model.moe is None:
        return 1
    devices = replicas * given.tensor_parallel
    wanted = (given.tensor_parallel, 1) if given.expert_tensor_parallel is None else (given.expert_tensor_parallel,)
    for degree in wanted:
        if devices % (expert_parallel * degree) == 0:
            return degree
    raise InputError(
        f"expert parallelism {expert_parallel} x {wanted[-1]} doesn't divide the {devices} devices of a stage",
        path="layout.expert_parallel",
    )


def _axis_order(case: Case, expert_ranks: int) -> AxisOrder:
    """Give the order that is asked for; with context parallelism, data is not outermost in any layout."""
    given = case.layout
    order = given.axis_order or AxisOrder.PIPELINE_OUTERMOST
    if order is AxisOrder.PIPELINE_OUTERMOST or given.context_parallel > 1:
        return AxisOrder.PIPELINE_OUTERMOST
    if case.model.moe is not None and expert_ranks != given.tensor_parallel:
        raise InputError(
            f"with data outermost, experts have as many replicas as the rest: expert x expert-tensor parallelism is "
            f"{expert_ranks}, not {given.tensor_parallel}",
            path="layout.axis_order",
        )
    return order


def _zero_shard(given: CaseLayout, replicas: int) -> int:
    shard = given.zero_shard_devices or replicas
    if replicas % shard:
        raise InputError(
            f"ZeRO over {shard} devices doesn't divide the {replicas} that hold the same parameters",
            path="layout.zero_shard_devices",
        )
    return shard


def _shards(given: CaseLayout, layout: Layout, *, defers_synchronisation: bool) -> Iterator[Layout]:
    for name, wider in WIDER_SHARDS.items():
        whole = layout.shards.get(wider, layout.zero_shard)
        if whole % layout.shards[name]:
            raise InputError(
                f"{layout.shards[name]} devices don't divide the {whole} of {wider}", path=f"layout.{name}_devices"
            )
    told = (given.gradient_shard_devices, given.parameter_shard_devices, given.backward_shard_devices)
    if defers_synchronisation and layout.zero_stage == SHARDED_PARAMETERS and told == (None, None, None):
        yield replace(layout, gradient_shard=1, parameter_shard=1)
    yield layout


def _context_method(given: CaseLayout) -> ContextMethod:
    return METHOD_NAMES.get(given.context_parallel_method or "", ContextMethod.RING)


def _recomputes(given: CaseLayout) -> tuple[Recompute, ...]:
    """Give what a case's recomputation may be: a module that is computed again beside "none" makes it selective."""
    if given.recompute is None:
        return RECOMPUTES
    if _every_so_many(given):
        return (Recompute.FULL,)
    if given.recompute is Recompute.NONE and recomputed_modules(given):
        return (Recompute.SELECTIVE,)
    return (given.recompute,)


def recomputed_modules(given: CaseLayout) -> tuple[RecomputedModule, ...]:
    """Give the modules that a case's recomputation names, none where it names none."""
    words = set(re.findall(r"[a-z_]+", str(given.recompute_detail or "").casefold()))
    return tuple(dict.fromkeys(module for word, module in MODULE_WORDS.items() if word in words))


def _recompute_layers(case: Case) -> int | None:
    """Give how many layers of a model chunk are recomputed where not all are.

    That is of blocks of layers ("full (block, 5 layers)"), or one in so many ("selective layer (every 2nd block)").
    """
    given = case.layout
    if every := _every_so_many(given):
        return max(case.model.layers // (given.pipeline_parallel * given.virtual_pipeline) // every, 1)
    found = re.search(r"\bblock\b\D*([1-9][0-9]{0,4})", str(given.recompute_detail or ""))
    return int(found[1]) if found and given.recompute is Recompute.FULL else None


def _every_so_many(given: CaseLayout) -> int | None:
    found = re.search(r"\bevery ([1-9][0-9]{0,2})(?:st|nd|rd|th) (?:block|layer)\b", str(given.recompute_detail or ""))
    return int(found[1]) if found and given.recompute is not Recompute.NONE else None


def _micro_batches(case: Case, layout: Layout, *, a_stage: bool) -> tuple[int, ...]:
    share, rest = divmod(case.batch.global_batch, layout.data_parallel)
    if rest:
        raise InputError(
            f"a batch of {case.batch.global_batch} isn't shared evenly by data parallelism {layout.data_parallel}",
            path="batch.global_batch",
        )
    if case.batch.micro_batch is None:
        stages = layout.pipeline_parallel
        if a_stage and stages > 1 and share % stages == 0:
            return (share // stages,)
        return tuple(_powers_of_two_in(share))
    if share % case.batch.micro_batch:
        raise InputError(
            f"a replica's share of {share} isn't whole micro-batches of {case.batch.micro_batch}",
            path="batch.micro_batch",
        )
    return (case.batch.micro_batch,)


def _powers_of_two_in(share: int) -> Iterator[int]:
    size = 1
    while share % size == 0:
        yield size
        size *= 2


def _assumptions(case: Case, layout: Layout) -> Iterator[str]:
    given = case.layout
    if layout.expert_parallel > given.expert_parallel:
        yield (
            f"{_spreading(case)} is between expert ranks, whose number isn't given: expert parallelism is taken to be "
            f"{layout.expert_parallel}, the most that divides the experts and the devices of a stage"
        )
    method = given.context_parallel_method
    if given.context_parallel > 1 and method is not None and method not in METHOD_NAMES:
        yield f"context parallelism by {method!r:.40} is taken to be a ring"
    if given.context_parallel > 1 and given.axis_order is AxisOrder.DATA_OUTERMOST:
        yield "the pipeline is taken to be outermost, as context parallelism asks for here"
    yield from pipeline_assumptions(given)
    if given.optimizer is not None and not re.search(r"adam(?!uon)", str(given.optimizer).casefold()):
        yield f"the optimizer {given.optimizer!r:.40} is counted as Adam"
    of_some = _recompute_layers(case) is not None or re.search(r"\buniform\b", str(given.recompute_detail))
    if given.recompute is Recompute.FULL and given.recompute_detail is not None and not of_some:
        yield f"recomputation {given.recompute_detail!r:.60} is taken to be of all layers"
    if given.recompute is Recompute.SELECTIVE and not (recomputed_modules(given) or _every_so_many(given)):
        detail = str(given.recompute_detail or "selective recompute")
        yield f"{detail:.60} is taken to be what the software usually recomputes"
