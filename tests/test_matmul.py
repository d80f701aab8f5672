"""The law of matrix products, worked out by hand on the round device: 50 TFLOP/s and 500 GB/s sustained.

`hypot` is the root of the sum of the squares of compute and memory time.
"""

from collections.abc import Callable
from math import hypot

import numpy as np
import pytest

from meshwright.catalog.errors import MissingData
from meshwright.catalog.precision import Precision
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.hardware.cluster import Cluster

LATENCY_S = 1e-5


def time_s(
    cluster: Cluster, sizes: tuple[float, float, float], *, count: float = 1.0, precision: Precision = Precision.BF16
) -> float:
    rows, columns, inner, pairs = (np.array([float(size)]) for size in (*sizes, count))
    product = Matmul(rows=rows, columns=columns, inner=inner, count=pairs)
    return float(matmul_time_s(cluster.device, precision, product)[0])


def test_large_product_is_bound_by_compute(round_cluster: Callable[..., Cluster]) -> None:
    # 10,000 x 900 by 900 x 10,000. Waves: 1 + 0.5 x (100 units x 100 x 100) / 10^8 = 1.005; depth: 900 + 100.
    # 2 x 10^8 x 1,000 x 1.005 / 50 TFLOP/s = 4.02 ms, against 2 x (0.9 + 0.9 + 10) x 10^7 B / 500 GB/s = 0.472 ms.
    assert time_s(round_cluster(), (10_000, 10_000, 900)) == pytest.approx(hypot(4.02e-3, 0.472e-3) + LATENCY_S)


def test_thin_product_is_bound_by_memory(round_cluster: Callable[..., Cluster]) -> None:
    # 1 x 10,000 by 10,000 x 10,000: 2 x (10^4 + 10^8 + 10^4) B / 500 GB/s = 0.40008 ms.
    # Compute: waves 1 + 0.5 x 10^6 / 10^4 = 51; 2 x 10^4 x 10,100 x 51 / 50 TFLOP/s = 0.20604 ms.
    found = time_s(round_cluster(), (1, 10_000, 10_000))
    assert found == pytest.approx(hypot(0.40008e-3, 0.20604e-3) + LATENCY_S)


def test_half_a_wave_is_lost(round_cluster: Callable[..., Cluster]) -> None:
    # One wave is 10^6 values. A product of one takes 1.5 waves, one of two 2.5: 5 / 3 as long, not twice. Memory of
    # 10^15 B/s takes no time.
    cluster = round_cluster(device={"memory_bandwidth_bytes_per_s": 1e15})
    one, two = (time_s(cluster, (rows, 1_000, 9_900)) - LATENCY_S for rows in (1_000, 2_000))
    assert one == pytest.approx(2e6 * 10_000 * 1.5 / 50e12)
    assert two / one == pytest.approx(5 / 3)


def test_a_product_as_deep_as_the_half_depth_runs_at_half_rate(round_cluster: Callable[..., Cluster]) -> None:
    # 2 x 10^10 x 100 operations would take 40 ms at 50 TFLOP/s; memory of 10^15 B/s takes no time.
    cluster = round_cluster(device={"memory_bandwidth_bytes_per_s": 1e15})
    shallow = time_s(cluster, (100_000, 100_000, 100)) - LATENCY_S
    assert shallow == pytest.approx(2 * 40e-3, rel=1e-4)


def test_grouped_products_share_waves_and_launch_but_not_weights(round_cluster: Callable[..., Cluster]) -> None:
    # Compute: four products of 1,000 rows fill waves like one of 4,000; memory of 10^15 B/s takes no time.
    fast = round_cluster(device={"memory_bandwidth_bytes_per_s": 1e15})
    deep = time_s(fast, (1_000, 1_000, 9_900), count=4)
    assert deep == pytest.approx(time_s(fast, (4_000, 1_000, 9_900)))
    # Memory: each has its own weights, 4 x 2 x (10^4 + 10^8 + 10^4) B / 500 GB/s. Compute: 1 + 0.5 x 10^6 / (4 x 10^4)
    # waves of 8 x 10^4 x 10,100 operations.
    own = time_s(round_cluster(), (1, 10_000, 10_000), count=4)
    assert own == pytest.approx(hypot(4 * 0.40008e-3, 13.5 * 8.08e8 / 50e12) + LATENCY_S)


def test_operations_are_two_for_each_multiplication() -> None:
    sizes = {name: np.array([value]) for name, value in (("rows", 2.0), ("columns", 3.0), ("inner", 5.0))}
    assert Matmul(**sizes, count=np.array([7.0])).flop == pytest.approx([2 * 2 * 3 * 5 * 7])


def test_narrow_formats_have_their_own_peak_and_ceiling(round_cluster: Callable[..., Cluster]) -> None:
    # 40 % of 200 TFLOP/s against 50 % of 100; without a narrow ceiling 50 % of 200. Operands of one byte, results of
    # two: (0.9 + 0.9 + 2 x 10) x 10^7 B at 500 GB/s.
    plain, unmeasured = round_cluster(), round_cluster(calibration={"narrow_matmul_ceiling": None})
    sizes = (10_000, 10_000, 900)
    expected = 2e8 * 1_000 * 1.005
    assert time_s(plain, sizes, precision=Precision.FP8) == pytest.approx(hypot(expected / 80e12, 0.436e-3) + LATENCY_S)
    assert time_s(unmeasured, sizes, precision=Precision.FP8) == pytest.approx(
        hypot(expected / 100e12, 0.436e-3) + LATENCY_S
    )


def test_nothing_takes_no_time(round_cluster: Callable[..., Cluster]) -> None:
    assert time_s(round_cluster(), (0, 1_000, 1_000)) == 0.0


def test_a_missing_peak_is_an_error(round_cluster: Callable[..., Cluster]) -> None:
    with pytest.raises(MissingData, match="no mxfp8 peak for round"):
        time_s(round_cluster(), (10, 10, 10), precision=Precision.MXFP8)
