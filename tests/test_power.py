"""How products slow down under a limit of power, by hand: 100 W idle, 900 W at full rate, measured at 500 W."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshwright.catalog.device_entry import DeviceEntry, PowerEntry, PowerScalingEntry
from meshwright.catalog.lookup import device_named
from meshwright.catalog.precision import Precision
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.costmodels.power import slowdown
from meshwright.hardware.cluster import Cluster
from meshwright.hardware.device import Device, device_of

SCALING_DOCUMENT = {"reference": "500 W", "idle": "100 W", "full_rate": "900 W", "exponent": 2.0, "source": "made up"}
SCALING = PowerScalingEntry.model_validate(SCALING_DOCUMENT)


def limited(device: Device, limit_w: float) -> Device:
    return replace(device, power_w=limit_w, power_scaling=SCALING)


def product(rows: float, columns: float, inner: float) -> Matmul:
    sizes = {"rows": rows, "columns": columns, "inner": inner, "count": 1.0}
    return Matmul(**{name: np.array([size]) for name, size in sizes.items()})


def test_slowdown_by_hand(round_cluster: Callable[..., Cluster]) -> None:
    # 200 W are left of 300 W. Half busy: 0.5 x 800 = 400 W, twice as much, so the clock falls by sqrt(2). Fully busy it
    # would draw 800 W, but at the reference it drew 400 W already. A quarter busy: 200 W, which fit.
    device = limited(round_cluster().device, 300.0)
    found = slowdown(device, np.array([0.5, 1.0, 0.25, 0.0, 0.36]))
    assert found == pytest.approx([np.sqrt(2), np.sqrt(2), 1.0, 1.0, 1.2])


def test_large_products_slow_down_and_shallow_ones_do_not(round_cluster: Callable[..., Cluster]) -> None:
    # 10,000 x 900 by 900 x 10,000: depth 1,000 / 900, waves 1.005, busy 0.8955, so that 400 W are drawn at the
    # reference: 4.02 ms of compute take sqrt(2) times as long, 0.472 ms of memory as ever. With 20 instead of 900 it is
    # busy for 0.166 of the time and draws 133 W.
    device = round_cluster().device
    deep, shallow = product(1e4, 1e4, 900), product(1e4, 1e4, 20)
    capped = matmul_time_s(limited(device, 300.0), Precision.BF16, deep)
    assert capped == pytest.approx(np.hypot(4.02e-3 * np.sqrt(2), 0.472e-3) + 1e-5)
    assert matmul_time_s(limited(device, 300.0), Precision.BF16, shallow) == matmul_time_s(
        device, Precision.BF16, shallow
    )


@pytest.mark.parametrize("limit_w", [500.0, 700.0])
def test_nothing_changes_at_the_reference_and_above(round_cluster: Callable[..., Cluster], limit_w: float) -> None:
    device = round_cluster().device
    for shape in (product(1e4, 1e4, 900), product(1, 1e4, 1e4)):
        found = matmul_time_s(limited(device, limit_w), Precision.BF16, shape)
        assert found == matmul_time_s(device, Precision.BF16, shape)


def test_devices_without_scaling_have_the_ceilings_of_their_own_limit(round_cluster: Callable[..., Cluster]) -> None:
    assert slowdown(replace(round_cluster().device, power_w=101.0), np.array([1.0])) == 1.0


@given(
    limits_w=st.tuples(st.floats(101, 900), st.floats(101, 900)),
    sizes=st.tuples(*[st.floats(1, 1e5)] * 3),
    faster=st.floats(1, 10),
)
def test_never_faster_with_a_lower_limit_or_less_of_a_device(
    round_cluster: Callable[..., Cluster],
    limits_w: tuple[float, float],
    sizes: tuple[float, float, float],
    faster: float,
) -> None:
    device, shape = round_cluster().device, product(*sizes)
    low, high = (limited(device, limit_w) for limit_w in sorted(limits_w))
    seconds = matmul_time_s(low, Precision.BF16, shape)
    assert seconds >= matmul_time_s(high, Precision.BF16, shape)
    quick = replace(low, memory_bandwidth_bytes_per_s=faster * low.memory_bandwidth_bytes_per_s)
    assert matmul_time_s(quick, Precision.BF16, shape) <= seconds
    quick = replace(low, peak_flop_per_s={Precision.BF16: faster * low.peak(Precision.BF16)})
    assert matmul_time_s(quick, Precision.BF16, shape) <= seconds


@pytest.mark.parametrize("limit", ["100 W", "90 W"])
def test_a_limit_that_idling_exceeds_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError, match="must be below limit"):
        PowerEntry.model_validate({"limit": limit, "source": "made up", "scaling": SCALING_DOCUMENT})


def test_the_board_of_500_w_has_the_constants_of_that_of_700_w() -> None:
    board, full = (device_named(name) for name in ("h100-hbm2e-96gb-500w", "h100-sxm-80gb"))
    assert board.power.scaling == full.power.scaling
    for name in ("matmul_ceiling", "narrow_matmul_ceiling", "matmul_half_depth"):
        assert getattr(board.calibration, name) == getattr(full.calibration, name)
    # 838 W of full rate are capped to 630 W at the reference; 430 W are left: (630 / 430)^(1 / 1.4).
    assert slowdown(device_of(board), 1.0) == pytest.approx((630 / 430) ** (1 / 1.4))
    assert slowdown(device_of(full), 1.0) == 1.0


def test_devices_may_leave_scaling_out(toy_device: Callable[..., DeviceEntry]) -> None:
    assert device_of(toy_device()).power_scaling is None
