"""Mixed clusters as users write them: groups, links, what is degraded, and what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.mixed_entry import MixedClusterEntry
from meshwright.catalog.mixed_lookup import find_mixed, is_mixed
from meshwright.hardware.islands import islands_of
from meshwright.planner.mixed.planning import mixed_inputs

JOB = {"global_batch": 64, "sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0}
LINK = {"between": ["old", "new"], "bandwidth": "100 Gb/s", "latency": "20 ms", "source": "as said"}


def document(**changes: object) -> dict[str, Any]:
    """Give a mixed cluster of two groups; keyword arguments replace fields."""
    return {
        "name": "halls",
        "groups": [
            {"name": "old", "cluster": "selene", "nodes": 4},
            {"name": "new", "cluster": "dgx-h100", "nodes": 2},
        ],
        "links": [LINK],
        "source": "made up",
    } | changes


def written(folder: Path, **changes: object) -> str:
    """Write a mixed cluster to a file."""
    file = folder / "halls.yaml"
    file.write_text(yaml.safe_dump(document(**changes)), "utf-8")
    return str(file)


def test_a_file_with_groups_is_read(tmp_path: Path) -> None:
    islands = islands_of(find_mixed(written(tmp_path)))
    assert [(island.name, island.cluster.devices, island.cluster.device.name) for island in islands.islands] == [
        ("old", 32, "a100-sxm-80gb"),
        ("new", 16, "h100-sxm-80gb"),
    ]
    (link,) = islands.links
    assert link.bandwidth_bytes_per_s == 12.5e9
    assert link.latency_s == 0.02


def test_plus_signs_join_clusters_as_a_file_does(tmp_path: Path) -> None:
    joined = islands_of(find_mixed("selene:32+dgx-h100:16", ["100 Gb/s, 20 ms"]))
    told = islands_of(find_mixed(written(tmp_path)))
    assert [island.cluster for island in joined.islands] == [island.cluster for island in told.islands]
    assert joined.links == told.links


def test_one_link_may_be_named() -> None:
    links = ["selene-dgx-h100: 1 Gb/s, 1 ms", "dgx-h100-dgx-h200: 2 Gb/s, 1 ms, 0.5 USD/GB"]
    islands = islands_of(find_mixed("selene:8+dgx-h100:8+dgx-h200:8", links))
    assert {link.between: link.bandwidth_bytes_per_s * 8 for link in islands.links} == {(0, 1): 1e9, (1, 2): 2e9}
    assert [link.price_usd_per_gigabyte for link in islands.links] == [0.0, 0.5]


def test_nodes_that_are_degraded_or_missing_are_islands_of_their_own(tmp_path: Path) -> None:
    wrong = [{"node": 1, "compute": 0.8}, {"node": 2, "missing": True}, {"node": 3, "compute": 0.8}]
    groups = [document()["groups"][0] | {"degrade": wrong}, document()["groups"][1]]
    islands = islands_of(find_mixed(written(tmp_path, groups=groups)))
    assert [(island.group, island.nodes, island.cluster.devices) for island in islands.islands] == [
        ("old", (0,), 8),
        ("old", (1, 3), 16),
        ("new", (0, 1), 16),
    ]
    peaks = [next(iter(island.cluster.device.peak_flop_per_s.values())) for island in islands.islands[:2]]
    assert peaks[1] == pytest.approx(0.8 * peaks[0])
    # Within the old group, what one node's eight NICs sustain: 8 x 25 GB/s x 0.96.
    inside = next(link for link in islands.links if link.between == (0, 1))
    assert inside.bandwidth_bytes_per_s == pytest.approx(8 * 25e9 * 0.96)


def test_one_degraded_node_needs_no_list(tmp_path: Path) -> None:
    groups = [document()["groups"][0] | {"degrade": {"node": 3, "network": 0.5}}, document()["groups"][1]]
    islands = islands_of(find_mixed(written(tmp_path, groups=groups))).islands
    assert [island.nodes for island in islands] == [(0, 1, 2), (3,), (0, 1)]
    bandwidths = [island.cluster.tiers[0].bandwidth_bytes_per_s for island in islands[:2]]
    assert bandwidths[0] == bandwidths[1]


def test_a_node_with_half_its_network_is_joined_by_half_of_it(tmp_path: Path) -> None:
    """One of four nodes of eight NICs of 25 GB/s, which sustain 0.96; parts at 0.8 have a name each."""
    wrong = [{"node": 1, "compute": 0.8, "network": 0.5}, {"node": 3, "compute": 0.8}]
    groups = [document()["groups"][0] | {"degrade": wrong}, document()["groups"][1]]
    found = islands_of(find_mixed(written(tmp_path, groups=groups)))
    rates = {link.between: link.bandwidth_bytes_per_s for link in found.links}
    assert rates[0, 1] == pytest.approx(0.5 * rates[0, 2])
    assert rates[0, 2] == pytest.approx(8 * 25e9 * 0.96)
    assert [island.name for island in found.islands] == ["old", "old at 0.8, network 0.5", "old at 0.8", "new"]


def test_a_degraded_link_has_less_bandwidth(tmp_path: Path) -> None:
    (link,) = islands_of(find_mixed(written(tmp_path, links=[LINK | {"left": 0.25}]))).links
    assert link.bandwidth_bytes_per_s == pytest.approx(12.5e9 / 4)


def test_what_is_mixed(tmp_path: Path) -> None:
    assert is_mixed("a+b")
    assert is_mixed(written(tmp_path))
    assert not is_mixed("dgx-h100:64")


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"links": []}, "links", "no link leads from old to new"),
        ({"links": [LINK | {"bandwidth": "0 Gb/s"}]}, "links.0.bandwidth", "'0 Gb/s' is not from"),
        ({"links": [LINK | {"bandwidth": 100}]}, "links.0.bandwidth", "needs a number with its unit"),
        ({"links": [LINK | {"between": ["old", "older"]}]}, "links.0.between", "no group is called 'older'"),
        ({"links": [LINK | {"between": ["old", "old"]}]}, "links.0.between", "to itself"),
        ({"links": [LINK, LINK]}, "links.1.between", "have a link already"),
        ({"links": [LINK | {"left": 0.0}]}, "links.0.left", "greater than or equal"),
        ({"groups": [{"name": "old", "cluster": "selene"}] * 2}, "groups.1.name", "two groups are called"),
        ({"groups": [{"name": "old", "cluster": "selene", "nodes": 0}]}, "groups.0.nodes", "greater than or equal"),
        ({"groups": [], "links": []}, "groups", "at least 1"),
        (
            {"groups": [{"name": "a", "cluster": "selene", "degrade": [{"node": 2, "compute": 0}]}], "links": []},
            "groups.0.degrade.0.compute",
            "is 0, which leaves nothing",
        ),
        (
            {
                "groups": [{"name": "a", "cluster": "selene", "nodes": 2, "degrade": [{"node": 2, "missing": True}]}],
                "links": [],
            },
            "groups.0.degrade.0.node",
            "is 2, but the group's nodes are 0 to 1",
        ),
        (
            {"groups": [{"name": "a", "cluster": "selene", "degrade": [{"node": 1, "compute": 0.5}] * 2}], "links": []},
            "groups.0.degrade.1.node",
            "is degraded twice",
        ),
        (
            {"groups": [{"name": "a", "cluster": "selene", "degrade": {"node": 1}}], "links": []},
            "groups.0.degrade.node",
            "1 is listed, but nothing of it is degraded",
        ),
        (
            {
                "groups": [{"name": "a", "cluster": "selene", "degrade": {"node": 1, "missing": True, "network": 0.5}}],
                "links": [],
            },
            "groups.0.degrade.network",
            "is 0.5 of a node that is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        validate(MixedClusterEntry, document(**changes), file="halls.yaml")
    assert raised.value.path == path
    assert words in raised.value.message


def test_a_group_of_an_unknown_cluster_is_named(tmp_path: Path) -> None:
    groups = [document()["groups"][0] | {"cluster": "selena"}, document()["groups"][1]]
    with pytest.raises(InputError, match="no cluster is called 'selena'") as raised:
        find_mixed(written(tmp_path, groups=groups))
    assert raised.value.path == "groups.0.cluster"
    assert raised.value.hint == "did you mean selene?"


def test_a_group_without_a_node_is_named(tmp_path: Path) -> None:
    groups = [
        document()["groups"][0],
        document()["groups"][1] | {"nodes": 1, "degrade": [{"node": 0, "missing": True}]},
    ]
    with pytest.raises(InputError, match="leaves the group no node") as raised:
        find_mixed(written(tmp_path, groups=groups))
    assert raised.value.path == "groups.1.degrade"


@pytest.mark.parametrize(
    ("name", "links", "path", "words"),
    [
        ("selene:8+dgx-h100:8", [], "--link", "nothing joins selene and dgx-h100"),
        ("selene:8+dgx-h100:8", ["fast"], "--link", "no bandwidth and latency"),
        ("selene:8+dgx-h100:8", ["100, 1 ms"], "--link", "the bandwidth of '100, 1 ms': '100' is not a number"),
        ("selene:8+dgx-h100:8", ["1 Gb/s, -3 ms"], "--link", "the latency of '1 Gb/s, -3 ms'"),
        ("selene:8+dgx-h100:8", ["1 Gb/s, 3 ms, free"], "--link", "the price of '1 Gb/s, 3 ms, free'"),
        ("selene:8+dgx-h100:8", ["1 Gb/s, 3 ms"] * 2, "--link", "'1 Gb/s, 3 ms' joins selene and dgx-h100, which"),
        ("selene:8+dgx-h100:8", ["0 Gb/s, 1 ms"], "--link", "is not from"),
        ("selene:8+dgx-h100:8", ["selene-frontier: 1 Gb/s, 1 ms"], "--link", "names no two of"),
        ("selene:8+", ["1 Gb/s, 1 ms"], "cluster", "without a cluster on both sides"),
        ("selene:8+dgx-h100:8+dgx-h200:8", ["selene-dgx-h100: 1 Gb/s, 1 ms"], "--link", "no link leads from"),
    ],
)
def test_what_is_wrong_with_joined_clusters_is_named(name: str, links: list[str], path: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        find_mixed(name, links)
    assert raised.value.path == path
    assert words in raised.value.message


def test_a_group_smaller_than_a_tensor_group_is_named() -> None:
    with pytest.raises(InputError, match="fewer than tensor_parallel 16") as raised:
        mixed_inputs(
            "llama-3.1-8b",
            "selene:64+dgx-h100:8",
            links=["100 Gb/s, 1 ms"],
            limits={"fix": {"tensor_parallel": 16}},
            memory_headroom=0.05,
            **JOB,
        )
    assert raised.value.path == "groups.1.nodes"


def test_groups_of_different_software_need_a_choice() -> None:
    with pytest.raises(InputError, match="usual training software differs") as raised:
        mixed_inputs(
            "llama-3.1-8b", "selene:8+atlas-900:8", links=["100 Gb/s, 1 ms"], memory_headroom=0.05, limits={}, **JOB
        )
    assert raised.value.path == "stack"
