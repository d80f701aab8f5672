"""The shipped devices and clusters: complete, consistent with each other, and equal to what their datasheets print."""

from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshwright.catalog.cluster_entry import ClusterEntry, Topology
from meshwright.catalog.device_entry import DeviceEntry, HostLink
from meshwright.catalog.document import parse_yaml, validate
from meshwright.catalog.errors import InputError, MissingData
from meshwright.catalog.lookup import device_named, entry_names, find_cluster, stack_named
from meshwright.catalog.precision import Precision
from meshwright.hardware.cluster import Cluster, cluster_of
from meshwright.hardware.device import device_of

DEVICES = entry_names("devices")
CLUSTERS = entry_names("clusters")
NARROW = {Precision.FP8, Precision.MXFP8, Precision.NVFP4}
GIB = 2**30


def _cluster(name: str) -> Cluster:
    return cluster_of(find_cluster(name))


def test_the_promised_devices_are_shipped() -> None:
    promised = (
        "a100-sxm-40gb a100-sxm-80gb a100-pcie-80gb a800-sxm-80gb h100-sxm-80gb h100-hbm2e-96gb-500w h800-sxm-80gb "
        "h200-sxm-141gb b200-sxm-180gb b300-sxm-288gb gb200-nvl72 gb300-nvl72 mi250x-gcd mi300x mi355x ascend-910a "
        "ascend-910b ascend-910c-die"
    )
    assert set(promised.split()) == set(DEVICES)


def test_the_promised_clusters_are_shipped() -> None:
    promised = "selene jean-zay dgx-h100 cloud-h100 frontier atlas-900 atlas-900-a2 gb200-nvl72 a100-ethernet pcie-box"
    assert set(promised.split()) <= set(CLUSTERS)


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_stands_on_entries_that_exist(name: str) -> None:
    entry = device_named(name)
    assert entry.name == name
    assert stack_named(entry.stack).name == entry.stack
    cluster = find_cluster(entry.reference_cluster)
    assert isinstance(cluster.device, str)
    assert device_named(cluster.device).family == entry.family


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_calibrated_for_the_formats_it_has(name: str) -> None:
    entry = device_named(name)
    assert (entry.calibration.narrow_matmul_ceiling is not None) == bool(NARROW & set(entry.compute.peak))
    peaks = entry.compute.peak
    assert peaks[Precision.FP16] == peaks.get(Precision.BF16, peaks[Precision.FP16])
    assert peaks.get(Precision.FP32, 0) < peaks[Precision.FP16]
    assert all(peaks[narrow] > peaks[Precision.FP16] for narrow in NARROW & set(peaks))
    assert peaks.get(Precision.MXFP8, peaks.get(Precision.FP8)) == peaks.get(Precision.FP8)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_stands_on_a_device_that_exists(name: str) -> None:
    cluster = _cluster(name)
    assert cluster.name == name
    assert cluster.devices % cluster.devices_per_node == 0
    assert cluster.tiers[-1].group == cluster.devices


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_slower_to_its_host_than_to_its_memory(name: str) -> None:
    device = device_of(device_named(name))
    assert device.host_link_bandwidth_bytes_per_s < device.memory_bandwidth_bytes_per_s
    assert device.host_memory_bandwidth_bytes_per_s < device.memory_bandwidth_bytes_per_s
    assert 30 * GIB < device.memory_bytes < 300 * GIB


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("a100-sxm-80gb", "bf16", 312e12),
        ("a100-sxm-40gb", "fp16", 312e12),
        ("a100-pcie-80gb", "fp32", 19.5e12),
        ("a800-sxm-80gb", "bf16", 312e12),
        ("h100-sxm-80gb", "bf16", 989.4e12),
        ("h100-sxm-80gb", "fp8", 1978.9e12),
        ("h100-sxm-80gb", "fp32", 66.9e12),
        ("h800-sxm-80gb", "fp8", 1978.9e12),
        ("h200-sxm-141gb", "bf16", 989.4e12),
        ("b200-sxm-180gb", "bf16", 2.25e15),
        ("b200-sxm-180gb", "mxfp8", 4.5e15),
        ("b200-sxm-180gb", "nvfp4", 9e15),
        ("b300-sxm-288gb", "nvfp4", 13.5e15),
        ("gb200-nvl72", "bf16", 2.5e15),
        ("gb200-nvl72", "mxfp8", 5e15),
        ("gb300-nvl72", "nvfp4", 15e15),
        ("mi250x-gcd", "bf16", 191.5e12),
        ("mi300x", "bf16", 1307.4e12),
        ("mi300x", "fp8", 2614.9e12),
        ("mi355x", "mxfp8", 5033.2e12),
        ("ascend-910a", "fp16", 256e12),
        ("ascend-910c-die", "bf16", 376e12),
    ],
)
def test_peaks_are_dense(name: str, precision: Precision, peak: float) -> None:
    assert device_of(device_named(name)).peak(Precision(precision)) == pytest.approx(peak, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("a100-sxm-80gb", "fp8"),
        ("h100-sxm-80gb", "mxfp8"),
        ("h200-sxm-141gb", "nvfp4"),
        ("mi250x-gcd", "fp8"),
        ("mi300x", "mxfp8"),
        ("mi355x", "nvfp4"),
        ("ascend-910a", "bf16"),
        ("ascend-910a", "fp32"),
        ("ascend-910b", "fp8"),
    ],
)
def test_a_format_that_a_device_lacks_is_missing_data(name: str, precision: str) -> None:
    with pytest.raises(MissingData) as caught:
        device_of(device_named(name)).peak(Precision(precision))
    assert f"no {precision} peak for {name}" in str(caught.value)
    assert f"compute.peak.{precision}" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "gib", "terabytes_per_s", "units", "watts"),
    [
        ("a100-sxm-40gb", 39.6, 1.555, 108, 400),
        ("a100-sxm-80gb", 79.3, 2.039, 108, 400),
        ("a100-pcie-80gb", 79.3, 1.935, 108, 300),
        ("h100-sxm-80gb", 79.6, 3.352, 132, 700),
        ("h100-hbm2e-96gb-500w", 95.0, 2.4, 132, 500),
        ("h200-sxm-141gb", 140.4, 4.8, 132, 700),
        ("b200-sxm-180gb", 179.1, 7.67, 148, 1000),
        ("gb200-nvl72", 185.0, 8.0, 152, 1200),
        ("mi250x-gcd", 64.0, 1.6, 110, 280),
        ("mi300x", 192.0, 5.3, 304, 750),
        ("mi355x", 288.0, 8.0, 256, 1400),
        ("ascend-910a", 32.0, 1.228, 32, 310),
        ("ascend-910b", 61.0, 1.6, 24, 400),
    ],
)
def test_devices_are_as_drivers_and_datasheets_print_them(
    name: str, gib: float, terabytes_per_s: float, units: int, watts: float
) -> None:
    device = device_of(device_named(name))
    assert device.memory_bytes / GIB == pytest.approx(gib, abs=0.06)
    assert device.memory_bandwidth_bytes_per_s == pytest.approx(terabytes_per_s * 1e12)
    assert device.compute_units == units
    assert device.power_w == pytest.approx(watts)


def test_a_superchip_shares_its_link_to_the_host() -> None:
    device = device_of(device_named("gb200-nvl72"))
    assert device.host_link is HostLink.C2C
    assert device.host_link_bandwidth_bytes_per_s == pytest.approx(225e9)
    assert device_of(device_named("mi250x-gcd")).host_link_bandwidth_bytes_per_s == pytest.approx(36e9)


def test_a_price_is_known_or_absent_never_guessed() -> None:
    assert device_of(device_named("h100-sxm-80gb")).price_usd_per_hour == pytest.approx(49.24 / 8, abs=0.006)
    assert device_of(device_named("ascend-910a")).price_usd_per_hour is None


@pytest.mark.parametrize(
    ("name", "devices", "groups", "gigabytes_per_s"),
    [
        ("selene", 4480, (8, 4480), (300, 25)),
        ("jean-zay", 416, (8, 416), (300, 6.25)),
        ("dgx-h100", 1024, (8, 1024), (450, 50)),
        ("cloud-h100", 512, (8, 256, 512), (450, 50, 50)),
        ("hgx-h800", 2048, (8, 2048), (200, 50)),
        ("frontier", 75264, (2, 8, 1024, 75264), (200, 150, 12.5, 12.5)),
        ("atlas-900", 4096, (4, 8, 4096), (90, 32, 12.5)),
        ("atlas-900-a2", 8192, (8, 8192), (196, 25)),
        ("gb200-nvl72", 576, (72, 576), (900, 50)),
        ("dgx-b300", 512, (8, 512), (900, 100)),
        ("a100-ethernet", 64, (8, 64), (300, 1.5625)),
        ("mi300x-box", 8, (8,), (448,)),
        ("pcie-box", 8, (8,), (32,)),
    ],
)
def test_clusters_are_as_published(
    name: str, devices: int, groups: tuple[int, ...], gigabytes_per_s: tuple[float, ...]
) -> None:
    cluster = _cluster(name)
    assert cluster.devices == devices
    assert tuple(tier.group for tier in cluster.tiers) == groups
    assert [tier.bandwidth_bytes_per_s / 1e9 for tier in cluster.tiers] == pytest.approx(gigabytes_per_s)


# A PCIe box alone has no network, and so no size beyond its own.
NETWORKED = [name for name in CLUSTERS if name != "pcie-box"]


@given(st.sampled_from(NETWORKED), st.integers(min_value=1, max_value=200_000))
def test_tiers_nest_at_every_size(name: str, devices: int) -> None:
    cluster = _cluster(f"{name}:{devices}")
    groups = [tier.group for tier in cluster.tiers]
    assert groups == sorted(set(groups))
    assert groups[-1] == cluster.devices == devices
    assert all(outer % inner == 0 for inner, outer in pairwise(groups[:-1]))
    assert 1 <= cluster.devices_per_node <= devices


@given(st.sampled_from(NETWORKED), st.integers(min_value=1, max_value=5_000))
def test_more_devices_never_slow_a_tier(name: str, devices: int) -> None:
    fewer, more = _cluster(f"{name}:{devices}"), _cluster(f"{name}:{devices + 1}")
    assert all(
        inside.bandwidth_bytes_per_s <= outside.bandwidth_bytes_per_s
        for inside, outside in zip(fewer.tiers, more.tiers, strict=False)
    )


def test_part_of_a_mesh_has_only_the_links_among_its_members() -> None:
    mesh = _cluster("atlas-900-a2:8").tiers[0]
    assert mesh.topology is Topology.MESH
    assert mesh.bandwidth_bytes_per_s == pytest.approx(7 * 28e9)
    assert _cluster("atlas-900-a2:4").tiers[0].bandwidth_bytes_per_s == pytest.approx(3 * 28e9)
    assert _cluster("atlas-900-a2:2").tiers[0].bandwidth_bytes_per_s == pytest.approx(28e9)
    # Two of the four cards of a Frontier node: one of the three bundles of links that leave a card.
    assert _cluster("frontier:4").tiers[1].bandwidth_bytes_per_s == pytest.approx(50e9)
    assert _cluster("dgx-h100:4").tiers[0].bandwidth_bytes_per_s == pytest.approx(450e9)


def test_the_global_links_of_frontier_taper() -> None:
    tiers = {tier.name: tier for tier in _cluster("frontier").tiers}
    assert tiers["group"].oversubscription == 1
    assert 1 / tiers["dragonfly"].oversubscription == pytest.approx(0.57, abs=0.01)


def test_a_cluster_is_found_in_any_spelling_and_resized() -> None:
    entry = find_cluster("DGX_H100:64")
    assert (entry.name, entry.devices) == ("dgx-h100", 64)
    assert find_cluster("dgx.h100").devices == 1024
    assert _cluster("dgx-h100:1").devices_per_node == 1


@pytest.mark.parametrize("size", ["0", "-8", "8.0", "1e3", "eight", "٨", " 8", "10000001", "9" * 5000, ""])
def test_a_size_that_is_no_count_is_refused(size: str) -> None:
    with pytest.raises(InputError) as caught:
        find_cluster(f"dgx-h100:{size}")
    assert caught.value.hint.startswith("write dgx-h100:64")
    assert len(caught.value.message) < 200


def test_a_misspelt_cluster_gets_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        find_cluster("dgx-h10:64")
    assert "dgx-h100" in caught.value.hint


def _tiers(*groups: int | None) -> dict[str, object]:
    tier = {"topology": "switch", "bandwidth": "1 GB/s", "latency": "1 us", "efficiency": 0.5}
    tier |= {"startup": "1 us", "source": "a test"}
    whole = {"name": "mine", "device": "mi300x", "devices": 8, "devices_per_node": 8, "source": "a test"}
    return whole | {"tiers": [tier | {"name": f"tier {group}", "group": group} for group in groups]}


@pytest.mark.parametrize(
    "groups", [(8,), (None, None), (None, 8), (8, 4, None), (8, 8, None), (8, 12, None), (0, None)]
)
def test_tiers_that_do_not_nest_are_refused(groups: tuple[int | None, ...]) -> None:
    with pytest.raises(ValidationError):
        ClusterEntry.model_validate(_tiers(*groups))
    assert ClusterEntry.model_validate(_tiers(4, 8, None)).tiers[1].group == 8


@pytest.mark.parametrize("section", ["memory", "compute", "host", "power", "price", "calibration"])
def test_a_group_of_numbers_without_a_source_is_refused(section: str) -> None:
    file = "devices/h100-sxm-80gb.yaml"
    document = parse_yaml((files("meshwright.catalog") / file).read_text(), file=file)
    del document[section]["source"]
    with pytest.raises(InputError) as caught:
        validate(DeviceEntry, document, file=file)
    assert caught.value.path == f"{section}.source"
