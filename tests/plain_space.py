"""The space of layouts in plain loops, sharing no code with the one that it is held to."""

import itertools
import math

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Partition, RecomputeBy
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.transformer import Attention, Experts, Mlp

ZERO_BUBBLE = [Schedule(name) for name in ("zb-h1", "zb-2p", "zbv", "v-half", "v-min")]
DUAL = [Schedule.DUAL_PIPE, Schedule.DUAL_PIPE_V]
# In the place of recompute_layers: as few as fit.
FEW = -1


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def has_heads(job: Job, ranks: int) -> bool:
    return all(attends_on(job, layer.attention, ranks) for layer in job.model.layers)


def attends_on(job: Job, attention: Attention, ranks: int) -> bool:
    repeated = job.stack.repeats_key_values and ranks % attention.kv_heads == 0
    return attention.heads % ranks == 0 and (attention.kv_heads % ranks == 0 or repeated)


def of_hybrid(job: Job, tensor: int, context: int) -> int:
    """Give the most neighbours in a node of eight that can exchange heads, some but not all of the context ranks."""
    in_node = min(8, job.cluster.devices)
    some = [size for size in divisors(context) if size < context and tensor * size <= in_node]
    return max([1, *(size for size in some if has_heads(job, tensor * size))])


def orders_of(job: Job, tensor: int, context: int, pipeline: int) -> list[AxisOrder]:
    """Give both orders where whole pipelines of neighbours fill nodes of eight, which pipelines of replicas leave."""
    fills_nodes = 8 % (tensor * pipeline) == 0 and job.cluster.devices > 8
    return list(AxisOrder) if pipeline > 1 and context == 1 and fills_nodes else [AxisOrder.PIPELINE_OUTERMOST]


def is_legal(job: Job, layout: Layout) -> bool:
    """Say the rules again, one layout at a time."""
    tensor, context, pipeline = layout.tensor_parallel, layout.context_parallel, layout.pipeline_parallel
    attentions = [layer.attention for layer in job.model.layers]
    experts = next((layer.mlp for layer in job.model.layers if isinstance(layer.mlp, Experts)), None)
    dense = [layer.mlp.ffn_hidden for layer in job.model.layers if isinstance(layer.mlp, Mlp)]
    micro_batches, rest = divmod(job.global_batch, layout.data_parallel * layout.micro_batch)
    method, in_node = layout.context_method, min(8, job.cluster.devices)
    broken = [
        rest > 0,
        layout.zero_shard == 0,
        context > 1 and method not in job.stack.context_methods,
        layout.axis_order not in job.stack.axis_orders,
        method == "ulysses" and not has_heads(job, tensor * context),
        method == "hybrid" and layout.ulysses_parallel == 1,
        method == "hybrid" and tensor * context <= in_node and has_heads(job, tensor * context),
        any(one.heads % tensor > 0 for one in attentions),
        any(one.kv_heads % tensor > 0 and tensor % one.kv_heads > 0 for one in attentions),
        any(width % tensor for width in dense),
        context > 1 and job.sequence_length % (2 * context) > 0,
        layout.sequence_parallel and job.sequence_length % (tensor * context) > 0,
        pipeline * layout.virtual_pipeline > len(job.model.layers),
        layout.schedule is Schedule.INTERLEAVED and micro_batches % pipeline > 0,
        layout.schedule in ZERO_BUBBLE and micro_batches < pipeline,
        layout.schedule is Schedule.DUAL_PIPE and (pipeline % 2 > 0 or micro_batches % 2 > 0),
        layout.schedule in DUAL and micro_batches < 2 * pipeline,
        layout.vocabulary_parallel and not job.stack.vocabulary_parallel,
        pipeline > 1 and layout.schedule not in job.stack.schedules,
        *(
            used and axis not in job.stack.axes
            for axis, used in (
                ("tensor", tensor > 1),
                ("sequence", layout.sequence_parallel),
                ("context", context > 1),
                ("pipeline", pipeline > 1),
                ("expert", layout.expert_parallel > 1),
            )
        ),
        layout.recompute_layers is not None and job.stack.recompute_by is RecomputeBy.ALL,
        layout.recompute_layers is not None and pipeline * layout.virtual_pipeline >= len(job.model.layers),
        layout.vocabulary_parallel and layout.schedule not in (Schedule.ONE_F_ONE_B, Schedule.V_HALF),
    ]
    if experts is not None:
        stage = tensor * context * layout.data_parallel
        broken += [
            experts.shared_ffn_hidden % tensor > 0,
            tensor > 1 and not layout.sequence_parallel,
            experts.ffn_hidden % layout.expert_tensor_parallel > 0,
            layout.axis_order == "tp-cp-pp-dp" and layout.expert_parallel * layout.expert_tensor_parallel != tensor,
            stage % (layout.expert_parallel * layout.expert_tensor_parallel) > 0,
            layout.zero_stage == 1
            and layout.zero_shard < layout.data_parallel * context
            and layout.zero_shard * tensor % (layout.expert_parallel * layout.expert_tensor_parallel) > 0,
        ]
    return not any(broken)


def shardings(job: Job, tensor: int, context: int, pipeline: int, data: int) -> list[tuple[AxisOrder, int, int]]:
    """Give each order with each ZeRO stage and the devices that it shards over: all, or in a node of eight some.

    0 devices are those of a node that has all of them or one, though it has some of them in the other order.
    """
    orders, ranks = orders_of(job, tensor, context, pipeline), data * context
    if ranks == 1:
        return [(order, 0, 1) for order in orders]
    apart = {AxisOrder.PIPELINE_OUTERMOST: tensor, AxisOrder.DATA_OUTERMOST: tensor * pipeline}
    near = {order: math.gcd(max(min(8, job.cluster.devices) // apart[order], 1), ranks) for order in orders}
    some = {order: size if 1 < size < ranks else 0 for order, size in near.items()}
    stages = [*([3] if Partition.HYBRID in job.stack.partitions else []), *job.stack.hybrid_stages]
    whole = [(order, stage, ranks) for order in orders for stage in range(4)]
    return whole + [(order, stage, some[order]) for order in orders for stage in stages if any(some.values())]


def by_loops(job: Job) -> tuple[int, set[Layout]]:
    """Give the number of candidates and the legal ones."""
    devices = job.cluster.devices
    experts = next((layer.mlp.experts for layer in job.model.layers if isinstance(layer.mlp, Experts)), 1)
    micro_batches = [size for size in divisors(job.global_batch) if size <= 32 or size & (size - 1) == 0]
    found = []
    for tensor, context, pipeline in itertools.product(divisors(devices), repeat=3):
        if devices % (tensor * context * pipeline):
            continue
        data = devices // (tensor * context * pipeline)
        pipelines = [(Schedule.ONE_F_ONE_B, 1)]
        if pipeline > 1:
            pipelines += [(Schedule.GPIPE, 1), (Schedule.DUAL_PIPE, 1), (Schedule.DUAL_PIPE_V, 2)]
            pipelines += [(schedule, 2 if "v" in schedule else 1) for schedule in ZERO_BUBBLE]
            pipelines += [(Schedule.INTERLEAVED, chunks) for chunks in (2, 3, 4, 5, 6, 7, 8, 12)]
        for method, sequence, (
            schedule,
            virtual,
        ), expert, expert_tensor, micro_batch, (
            order,
            zero_stage,
            zero_shard,
        ), vocabulary, recompute in itertools.product(
            list(ContextMethod) if context > 1 else [ContextMethod.RING],
            [False, True] if tensor > 1 else [False],
            pipelines,
            divisors(experts),
            sorted({1, tensor}) if experts > 1 else [1],
            micro_batches,
            shardings(job, tensor, context, pipeline, data),
            [False, True] if pipeline > 1 else [False],
            [*((mode, None) for mode in Recompute), (Recompute.FULL, FEW)],
        ):
            found.append(
                Layout(
                    tensor_parallel=tensor,
                    sequence_parallel=sequence,
                    context_parallel=context,
                    axis_order=order,
                    context_method=method,
                    ulysses_parallel=of_hybrid(job, tensor, context) if method == "hybrid" else 1,
                    pipeline_parallel=pipeline,
                    virtual_pipeline=virtual,
                    data_parallel=data,
                    expert_parallel=expert,
                    expert_tensor_parallel=expert_tensor,
                    zero_stage=zero_stage,
                    vocabulary_parallel=vocabulary,
                    zero_shard=zero_shard,
                    recompute=recompute[0],
                    recompute_layers=recompute[1],
                    schedule=schedule,
                    micro_batch=micro_batch,
                )
            )
    assert len(found) == len(set(found))
    return len(found), {layout for layout in found if is_legal(job, layout)}
