"""The jobs of `make bench-mixed`."""

from meshwright.catalog.mixed_entry import MixedClusterEntry

NVLINK = {
    "name": "nvlink",
    "group": 8,
    "topology": "switch",
    "bandwidth": "300 GB/s",
    "latency": "0.5 us",
    "startup": "8.9 us",
    "efficiency": 0.865,
    "source": "as catalog/clusters/selene.yaml",
}
ROCE = {
    "name": "roce",
    "group": None,
    "topology": "fabric",
    "bandwidth": "200 Gb/s",
    "latency": "8 us",
    "startup": "15 us",
    "efficiency": 0.85,
    "source": "NICs as fast as selene's, remembered to sustain less",
}


def three_networks(*, link: str = "320 Gb/s", ethernet: str = "a100-ethernet") -> MixedClusterEntry:
    """Islands of four nodes of eight A100 on InfiniBand, RoCE and Ethernet, after Holmes (arXiv 2312.03549).

    They are joined by the Ethernet ports of their nodes: four of 100 Gb/s, of which TCP sustains 0.8.
    """
    roce = {
        "name": "a100-roce",
        "device": "a100-sxm-80gb",
        "devices": 32,
        "devices_per_node": 8,
        "tiers": [NVLINK, ROCE],
        "source": "made up: selene on RoCE",
    }
    names = ("infiniband", "roce", "ethernet")
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    return MixedClusterEntry.model_validate(
        {
            "name": "three-networks",
            "groups": [
                {"name": names[0], "cluster": "selene", "nodes": 4},
                {"name": names[1], "cluster": roce, "nodes": 4},
                {"name": names[2], "cluster": ethernet, "nodes": 4},
            ],
            "links": [
                {"between": pair, "bandwidth": link, "latency": "0.1 ms", "source": "ports of the nodes"}
                for pair in pairs
            ],
            "source": "islands of arXiv 2312.03549, with the catalog's machines",
        }
    )
