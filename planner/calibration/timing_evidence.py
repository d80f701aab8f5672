"""Timed pieces of work as evidence: each beside the law of the cost model that predicts it, alone on its device.

Matrix products go with `costmodels/matmul.py`, attention with the fused core of `costmodels/attention.py` at the full
share of the best kernels, collectives with `costmodels/collectives.py` on the tiers of the device's reference cluster
that they cross, and a copy of B bytes read and written takes

    t = B / (streaming bandwidth) + kernel_latency.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.overlay import overlaid_cluster, overlaid_device
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.costmodels.attention import core_time_s
from meshwright.costmodels.collectives import (
    Group,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    reduce_scatter_s,
    send_s,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.cluster import Cluster, cluster_of
from meshwright.hardware.device import device_of
from meshwright.planner.accuracy.case_cluster import Machine
from meshwright.planner.calibration.evidence import Evidence
from meshwright.planner.calibration.timing import (
    AttentionTiming,
    Collective,
    CollectiveTiming,
    CopyTiming,
    MatmulTiming,
    Pass,
    Timing,
)

_COLLECTIVE_LAWS: Mapping[Collective, Callable[[Cluster, Group, FloatArray], FloatArray]] = {
    Collective.ALL_REDUCE: all_reduce_s,
    Collective.ALL_GATHER: all_gather_s,
    Collective.REDUCE_SCATTER: reduce_scatter_s,
    Collective.ALL_TO_ALL: all_to_all_s,
    Collective.SEND_RECV: send_s,
}


_Predict = Callable[[Machine], FloatArray]


def timing_evidence(timings: Sequence[Timing], *, machine: Machine, label: str) -> Evidence:
    """Make evidence of what one source timed on a machine.

    Raises InputError where a collective doesn't fit the reference cluster's nodes, and MissingData where the device has
    no peak for a precision, or its nodes no network.
    """
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, timing in enumerate(timings):
        alike[_key(timing)].append(index)
    parts = [(np.array(indices), _law([timings[index] for index in indices], machine)) for indices in alike.values()]

    def predict(overlay: OverlayEntry) -> FloatArray:
        overlaid = _under(machine, overlay)
        seconds = np.empty(len(timings))
        for indices, law in parts:
            seconds[indices] = law(overlaid)
        return seconds

    for _, law in parts:  # what the catalog lacks is said now, not in the midst of a fit
        law(machine)
    return Evidence(
        label=label,
        places=tuple(timing.place for timing in timings),
        measured_s=np.array([timing.time_s for timing in timings]),
        predict=predict,
    )


def _under(machine: Machine, overlay: OverlayEntry) -> Machine:
    return replace(
        machine,
        device=overlaid_device(machine.device, [overlay]),
        reference=overlaid_cluster(machine.reference, [overlay]),
    )


def _key(timing: Timing) -> tuple[object, ...]:
    """Say what timings have to share to be predicted as one array."""
    if isinstance(timing, MatmulTiming):
        return MatmulTiming, timing.precision
    if isinstance(timing, AttentionTiming):
        shape = (timing.heads, timing.kv_heads, timing.head_dim, timing.sequence_length)
        return AttentionTiming, *shape, timing.precision, timing.through
    if isinstance(timing, CollectiveTiming):
        return CollectiveTiming, timing.collective, timing.ranks, timing.nodes
    return (CopyTiming,)


def _law(timings: Sequence[Timing], machine: Machine) -> _Predict:
    """Give the law of timings that have the same key."""
    first = timings[0]
    if isinstance(first, MatmulTiming):
        return _matmuls([timing for timing in timings if isinstance(timing, MatmulTiming)])
    if isinstance(first, AttentionTiming):
        return _attention([timing for timing in timings if isinstance(timing, AttentionTiming)])
    if isinstance(first, CollectiveTiming):
        return _collectives([timing for timing in timings if isinstance(timing, CollectiveTiming)], machine)
    return _copies([timing for timing in timings if isinstance(timing, CopyTiming)])


def _matmuls(timings: Sequence[MatmulTiming]) -> _Predict:
    precision = timings[0].precision
    product = Matmul(
        rows=np.array([float(timing.rows) for timing in timings]),
        columns=np.array([float(timing.columns) for timing in timings]),
        inner=np.array([float(timing.inner) for timing in timings]),
        count=np.array([float(timing.count) for timing in timings]),
    )
    return lambda machine: matmul_time_s(device_of(machine.device), precision, product)


def _copies(timings: Sequence[CopyTiming]) -> _Predict:
    moved_bytes = np.array([float(timing.moved_bytes) for timing in timings])

    def predict(machine: Machine) -> FloatArray:
        device = device_of(machine.device)
        calibration = device.calibration
        bandwidth = calibration.streaming * device.memory_bandwidth_bytes_per_s
        return moved_bytes / bandwidth + calibration.kernel_latency

    return predict


def _attention(timings: Sequence[AttentionTiming]) -> _Predict:
    """Predict the core of a model that is nothing but the attention that was timed."""
    first = timings[0]
    model = transformer_of(
        ModelEntry(
            name="timed attention",
            source="a timing",
            layers=1,
            hidden=first.heads * first.head_dim,
            heads=first.heads,
            kv_heads=first.kv_heads,
            head_dim=first.head_dim,
            ffn_hidden=1,
            gated_mlp=False,
            vocab=1,
            tied_embeddings=False,
        )
    )
    layouts = LayoutTable.of(Layout(micro_batch=timing.batch) for timing in timings)

    def predict(machine: Machine) -> FloatArray:
        job = Job(
            model=model,
            cluster=_cluster(machine, devices=1),
            stack=machine.stack.model_copy(update={"fused_attention": True, "attention_share": 1.0}),
            precision=first.precision,
            global_batch=1,
            sequence_length=first.sequence_length,
        )
        forward_s, backward_s = core_time_s(job, model.layers[0].attention, layouts)
        return forward_s if first.through is Pass.FORWARD else backward_s

    return predict


def _collectives(timings: Sequence[CollectiveTiming], machine: Machine) -> _Predict:
    first = timings[0]
    law = _COLLECTIVE_LAWS[first.collective]
    per_node = first.ranks // first.nodes
    whole_node = machine.reference.devices_per_node
    if per_node > whole_node or (first.nodes > 1 and whole_node % per_node):
        raise InputError(
            f"{first.place}: {per_node} ranks a node aren't an even share of the {whole_node} devices that a node of "
            f"{machine.reference.name} has",
            hint="time collectives over all devices of each node, or over a number that divides them",
        )
    # Over several nodes ranks that are some of each are spread evenly; in one node they are side by side.
    stride = whole_node // per_node if first.nodes > 1 else 1
    shape = (len(timings),)
    group = Group(size=np.full(shape, first.ranks), stride=np.full(shape, stride))
    whole_bytes = np.array([timing.whole_bytes for timing in timings])
    return lambda machine: law(_cluster(machine, devices=first.nodes * whole_node), group, whole_bytes)


def _cluster(machine: Machine, *, devices: int) -> Cluster:
    return cluster_of(machine.reference.model_copy(update={"device": machine.device, "devices": devices}))
