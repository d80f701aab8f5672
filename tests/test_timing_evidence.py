"""Timed pieces of work beside the laws: what each predicts, in the order given, under an overlay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import InputError, MissingData
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.precision import Precision
from meshwright.costmodels.collectives import (
    Group,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    reduce_scatter_s,
    send_s,
)
from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.hardware.cluster import Cluster, cluster_of
from meshwright.hardware.device import device_of
from meshwright.planner.accuracy.case_cluster import Machine, machine_named
from meshwright.planner.calibration.timing import (
    AttentionTiming,
    Collective,
    CollectiveTiming,
    CopyTiming,
    MatmulTiming,
    Pass,
    Timing,
)
from meshwright.planner.calibration.timing_evidence import timing_evidence

SIZE_BYTES = 3.6e8
Law = Callable[[Cluster, Group, FloatArray], FloatArray]


@pytest.fixture
def machine(toy_device: Callable[..., DeviceEntry], toy_cluster: Callable[..., ClusterEntry]) -> Machine:
    """Nodes of 8 at 450 GB/s, 50 GB/s between them, 0.8 of both sustained; 3 us a step, 10 us a start."""
    return Machine(device=toy_device(), reference=toy_cluster(64), stack=stack_named("megatron-core"))


def overlay(**parts: object) -> OverlayEntry:
    return OverlayEntry.model_validate({"version": 1, "source": "made up for a test", **parts})


def calibrated(**figures: object) -> OverlayEntry:
    return overlay(devices={"toy-device": {"calibration": figures}})


def predicted(machine: Machine, *timings: Timing, under: OverlayEntry | None = None) -> list[float]:
    evidence = timing_evidence(timings, machine=machine, label="a test")
    return [float(seconds) for seconds in evidence.predict(under or overlay())]


def exchange(collective: Collective, *, ranks: int = 8, nodes: int = 1) -> CollectiveTiming:
    return CollectiveTiming(
        collective=collective, ranks=ranks, nodes=nodes, whole_bytes=SIZE_BYTES, time_s=1e-3, place="log: line 9"
    )


def matmul(rows: int, precision: Precision = Precision.BF16) -> MatmulTiming:
    return MatmulTiming(
        rows=rows, columns=512, inner=1024, precision=precision, time_s=rows * 1e-6, place=f"row {rows}"
    )


def attention(through: Pass, *, batch: int = 4) -> AttentionTiming:
    return AttentionTiming(
        batch=batch,
        heads=16,
        kv_heads=16,
        head_dim=128,
        sequence_length=4096,
        precision=Precision.BF16,
        through=through,
        time_s=1e-3,
        place=str(through),
    )


def test_rows_keep_their_order_though_each_law_takes_its_own_at_once(machine: Machine) -> None:
    copy = CopyTiming(moved_bytes=10**9, time_s=4e-4, place="copy")
    mixed: list[Timing] = [matmul(64), copy, matmul(96, Precision.FP32), exchange(Collective.ALL_REDUCE), matmul(128)]
    evidence = timing_evidence(mixed, machine=machine, label="a test")
    assert evidence.places == ("row 64", "copy", "row 96", "log: line 9", "row 128")
    assert evidence.measured_s == pytest.approx([64e-6, 4e-4, 96e-6, 1e-3, 128e-6])
    alone = [predicted(machine, timing)[0] for timing in mixed]
    assert evidence.predict(overlay()) == pytest.approx(alone)
    assert len(set(alone)) == len(alone)


def test_products_go_with_the_law_of_products(machine: Machine) -> None:
    sizes = {name: np.array([size]) for name, size in (("rows", 64.0), ("columns", 512.0), ("inner", 1024.0))}
    law = matmul_time_s(device_of(machine.device), Precision.BF16, Matmul(**sizes, count=np.array([1.0])))
    assert predicted(machine, matmul(64)) == pytest.approx(list(law))


def test_a_copy_is_bound_by_memory(machine: Machine) -> None:
    # 3 GB at 0.85 of 3 TB/s, and 4 us.
    copy = CopyTiming(moved_bytes=3 * 10**9, time_s=1e-3, place="copy")
    assert predicted(machine, copy) == pytest.approx([3e9 / 2.55e12 + 4e-6])
    laid_over = calibrated(streaming=0.5, kernel_latency="9 us")
    assert predicted(machine, copy, under=laid_over) == pytest.approx([3e9 / 1.5e12 + 9e-6])


def test_attention_goes_with_its_pass(machine: Machine) -> None:
    both = (attention(Pass.FORWARD), attention(Pass.BACKWARD))
    forward_s, backward_s = predicted(machine, *both)
    halved = predicted(machine, *both, under=calibrated(attention_forward=0.3))
    assert halved[0] - 4e-6 == pytest.approx(2 * (forward_s - 4e-6))  # 0.6 before
    assert halved[1] == pytest.approx(backward_s)
    # 2.5 times the operations, at 0.5 of the peak instead of 0.6.
    assert (backward_s - 4e-6) / (forward_s - 4e-6) == pytest.approx(2.5 * 0.6 / 0.5)


def test_attention_is_as_fast_as_the_best_kernels_whatever_the_stack(machine: Machine) -> None:
    slower = Machine(
        device=machine.device,
        reference=machine.reference,
        stack=machine.stack.model_copy(update={"attention_share": 0.5, "fused_attention": False}),
    )
    assert predicted(slower, attention(Pass.FORWARD)) == predicted(machine, attention(Pass.FORWARD))


def law_s(law: Law, entry: ClusterEntry, *, devices: int, size: int, stride: int = 1) -> float:
    """What a law says of a group of a cluster of so many devices."""
    group = Group(size=np.array([size]), stride=np.array([stride]))
    cluster = cluster_of(entry.model_copy(update={"devices": devices}))
    return float(law(cluster, group, np.array([SIZE_BYTES]))[0])


@pytest.mark.parametrize(
    ("collective", "law"),
    [
        (Collective.ALL_GATHER, all_gather_s),
        (Collective.REDUCE_SCATTER, reduce_scatter_s),
        (Collective.ALL_REDUCE, all_reduce_s),
        (Collective.ALL_TO_ALL, all_to_all_s),
        (Collective.SEND_RECV, send_s),
    ],
)
def test_collectives_in_a_node_go_with_their_laws(machine: Machine, collective: Collective, law: Law) -> None:
    expected = law_s(law, machine.reference, devices=8, size=8)
    assert predicted(machine, exchange(collective)) == pytest.approx([expected])
    assert expected > SIZE_BYTES / 450e9 * 7 / 8  # the links' full bandwidth


def test_collectives_over_nodes_use_the_network(machine: Machine) -> None:
    whole = predicted(machine, exchange(Collective.ALL_GATHER, ranks=16, nodes=2))
    assert whole == pytest.approx([law_s(all_gather_s, machine.reference, devices=16, size=16)])
    # One device of each node has one network card.
    single = predicted(machine, exchange(Collective.ALL_GATHER, ranks=2, nodes=2))
    assert single == pytest.approx([law_s(all_gather_s, machine.reference, devices=16, size=2, stride=8)])
    assert single[0] > SIZE_BYTES / 2 / 50e9


def test_each_tier_has_its_own_figures(machine: Machine) -> None:
    inside, across = exchange(Collective.ALL_GATHER), exchange(Collective.ALL_GATHER, ranks=16, nodes=2)
    laid_over = overlay(clusters={"toy-cluster": {"tiers": {"fabric": {"efficiency": 0.4}}}})
    before, after = predicted(machine, inside, across), predicted(machine, inside, across, under=laid_over)
    assert after[0] == before[0]
    node, fabric = machine.reference.tiers
    halved = machine.reference.model_copy(
        update={"tiers": (node, fabric.model_copy(update={"efficiency": fabric.efficiency / 2}))}
    )
    assert fabric.efficiency == 0.8
    assert after[1] == pytest.approx(law_s(all_gather_s, halved, devices=16, size=16))
    assert after[1] > 1.5 * before[1]


@pytest.mark.parametrize(("ranks", "nodes"), [(16, 1), (12, 2)])
def test_groups_that_do_not_fit_the_nodes_are_refused(machine: Machine, ranks: int, nodes: int) -> None:
    with pytest.raises(InputError, match=r"log: line 9: \d+ ranks a node aren't an even share of the 8 devices"):
        timing_evidence([exchange(Collective.ALL_GATHER, ranks=ranks, nodes=nodes)], machine=machine, label="a test")


def test_a_node_of_a_larger_domain_is_part_of_it() -> None:
    machine = machine_named("gb200-nvl72")
    over_nvlink = predicted(machine, exchange(Collective.ALL_REDUCE, ranks=72, nodes=18))
    domain = machine.reference.tiers[0]
    assert domain.group == 72
    assert over_nvlink == pytest.approx([law_s(all_reduce_s, machine.reference, devices=72, size=72)])
    # Through the network it would take longer than this.
    assert over_nvlink[0] < 2 * SIZE_BYTES * 71 / 72 / machine.reference.tiers[-1].bandwidth / 4


def test_what_the_catalog_lacks_is_said_at_once(machine: Machine) -> None:
    with pytest.raises(MissingData, match="no nvfp4 peak for toy-device"):
        timing_evidence([matmul(64, Precision.NVFP4)], machine=machine, label="a test")


def test_no_timings_are_no_rows(machine: Machine) -> None:
    evidence: Any = timing_evidence([], machine=machine, label="a test")
    assert len(evidence) == len(evidence.predict(overlay())) == 0
