"""Time of one layer for one micro-batch on one device: forward, backward, and what is computed again.

Causes: `matmul`, `attention`, `elementwise`, `tensor_communication`, `context_communication`, `expert_communication`,
and `host`, the time by which the host is slower at launching the layer's kernels than the device at running them.

Schedules that put off weight gradients make them in a pass of their own, so that host and device wait for each other
in each of two backward passes.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.attention import core_time_s
from meshwright.costmodels.collectives import Group, all_to_all_s
from meshwright.costmodels.context_messages import context_messages
from meshwright.costmodels.elementwise import elementwise_bytes
from meshwright.costmodels.expert_routing import others_entered
from meshwright.costmodels.host import launch_s, weight_launch_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import (
    ACTIVATION_BYTES,
    attention_products,
    expert_rows,
    mlp_products,
)
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.matmul import NARROW, OPERAND_BYTES, Matmul, matmul_time_s, product_precision
from meshwright.costmodels.parameter_bytes import summed_bytes
from meshwright.costmodels.recompute import FULL, SELECTIVE, fully_repeated_shares, repeated_shares
from meshwright.costmodels.schedule.codes import SPLIT_BACKWARD
from meshwright.costmodels.tensor_messages import TensorMessages, exposed_tensor_s, sums_of_several_s, tensor_messages
from meshwright.costmodels.transformer import Experts, Layer


class Cause(StrEnum):
    """What a layer's time goes to."""

    MATMUL = "matmul"
    ATTENTION = "attention"
    ELEMENTWISE = "elementwise"
    TENSOR = "tensor_communication"
    CONTEXT = "context_communication"
    EXPERT = "expert_communication"
    HOST = "host"


Pass = dict[Cause, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Seconds by cause, arrays of shape [layouts], of one layer and micro-batch.

    weight_s: of the backward pass, what makes weight gradients in a pass of its own; 0 where none does.
    launch_s: the host's time for launching both ways.
    hidden_s: of both passes, messages of tensor and context parallelism that run beside compute and don't show.
    """

    forward: Pass
    backward: Pass
    recompute: Pass
    weight_s: FloatArray
    launch_s: FloatArray
    hidden_s: FloatArray


def products_time_s(job: Job, products: tuple[Matmul, ...]) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of some products forward, and of their data and weight gradients.

    Formats narrower than 16 bits quantise the input forward and the output's gradient backward: each is read in 16 bits
    and written as it is and transposed. NVFP4 scales by the largest value of the whole tensor too, which has to be read
    once more for that (arXiv 2509.25149, section 2.1), and so does fp8 where the stack scales dynamically. Products
    that stay in 16 bits quantise nothing.
    """
    device = job.cluster.device
    bandwidth = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    forward = backward = np.zeros(1)
    for product in products:
        precision = product_precision(job.precision, product)
        forward = forward + matmul_time_s(device, precision, product)
        for gradient in (product.data_gradient, product.weight_gradient(summed_bytes(job))):
            backward = backward + matmul_time_s(device, precision, gradient)
        if precision in NARROW:
            held = (
                (_quantised_from_bytes(job.stack, precision) + 2 * OPERAND_BYTES[precision])
                * product.count
                * product.rows
                / bandwidth
            )
            forward, backward = forward + held * product.inner, backward + held * product.columns
    return forward, backward


def _quantised_from_bytes(stack: StackEntry, precision: Precision) -> int:
    twice = precision is Precision.NVFP4 or (precision is Precision.FP8 and stack.dynamic_scaling)
    return (2 if twice else 1) * ACTIVATION_BYTES


def weight_gradients_s(job: Job, products: tuple[Matmul, ...]) -> FloatArray:
    """Give the seconds of the weight gradients of some products, [layouts], a part of their backward seconds."""
    device = job.cluster.device
    return np.asarray(
        sum(
            matmul_time_s(device, product_precision(job.precision, product), product.weight_gradient(summed_bytes(job)))
            for product in products
        )
    )


def layer_time(job: Job, layer: Layer, layouts: LayoutTable) -> LayerTime:
    """Give the time of one layer for one micro-batch."""
    products = attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)
    matmul_forward, matmul_backward = products_time_s(job, products)
    put_off = np.isin(layouts.schedule, SPLIT_BACKWARD)
    weight_s = np.where(put_off, weight_gradients_s(job, products), 0.0)
    core_s = core_time_s(job, layer.attention, layouts)
    device = job.cluster.device
    streaming = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    elementwise = elementwise_bytes(job, layer, layouts) / streaming
    sent = tensor_messages(job, layer, layouts)
    tensor_forward = exposed_tensor_s(job, layouts, sent, products_s=matmul_forward, alone_s=0.0)
    tensor_backward = exposed_tensor_s(
        job,
        layouts,
        sent,
        products_s=matmul_backward - weight_s,
        alone_s=sums_of_several_s(job, layer, sent),
    )
    messages = context_messages(job, layer.attention, layouts)
    context_forward, context_backward = messages.exposed_s(device.calibration.contention, core_s)
    expert = _expert_communication_s(job, layer, layouts)
    forward = {
        Cause.MATMUL: matmul_forward,
        Cause.ATTENTION: core_s[0],
        Cause.ELEMENTWISE: elementwise,
        Cause.TENSOR: tensor_forward,
        Cause.CONTEXT: context_forward,
        Cause.EXPERT: expert,
    }
    backward = {
        Cause.MATMUL: matmul_backward,
        Cause.ATTENTION: core_s[1],
        Cause.ELEMENTWISE: 2.0 * elementwise,
        Cause.TENSOR: tensor_backward,
        Cause.CONTEXT: context_backward,
        Cause.EXPERT: expert,
    }
    each_s = launch_s(job, layer, layouts)
    weights_s = np.where(put_off, weight_launch_s(job, layer, layouts), 0.0)
    idle_s = np.maximum(weights_s - weight_s, 0.0)
    forward[Cause.HOST] = np.maximum(each_s - busy_s(forward), 0.0)
    backward[Cause.HOST] = np.maximum(each_s - weights_s - (busy_s(backward) - weight_s), 0.0) + idle_s
    return LayerTime(
        forward=forward,
        backward=backward,
        recompute=_recomputed(job, layer, forward, layouts, sent),
        weight_s=weight_s + idle_s,
        launch_s=2.0 * each_s,
        hidden_s=2.0 * sent.total_s
        - (tensor_forward + tensor_backward)
        + sum((*messages.waited_s, *messages.passed_s))
        - (context_forward + context_backward),
    )


def busy_s(causes: Pass) -> FloatArray:
    """Give the seconds for which the device is busy in a pass, [layouts]."""
    return np.asarray(sum(seconds for cause, seconds in causes.items() if cause is not Cause.HOST))


def _recomputed(job: Job, layer: Layer, forward: Pass, layouts: LayoutTable, sent: TensorMessages) -> Pass:
    """Full recomputation repeats the forward pass with its messages, selective a share of some causes."""
    shares, whole = repeated_shares(job, layer, layouts, sent), fully_repeated_shares(job, layer, layouts, sent)
    full, selective = layouts.recompute == FULL, layouts.recompute == SELECTIVE
    return {
        cause: np.where(full, whole.get(cause, 1.0), np.where(selective, shares.get(cause, 0.0), 0.0)) * seconds
        for cause, seconds in forward.items()
    }


def _expert_communication_s(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Dispatch and combine: each held token goes to its experts' devices and back; the backward pass does the same."""
    if not isinstance(layer.mlp, Experts):
        return np.zeros(len(layouts))
    group = Group(size=layouts.expert_parallel, stride=layouts.expert_tensor_parallel)
    sent = ACTIVATION_BYTES * job.model.hidden * expert_rows(job, layer.mlp, layouts) / layouts.expert_tensor_parallel
    if not job.stack.deduplicated_dispatch:
        return 2.0 * all_to_all_s(job.cluster, group, sent)
    experts = layer.mlp
    return 2.0 * all_to_all_s(
        job.cluster, group, sent, leaving=lambda others: others_entered(experts, others) / experts.top_k
    )
