"""Small synthetic entries that tests of the planner share."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.model_entry import ModelEntry

SOURCE = "made up for a test"

DEVICE: dict[str, Any] = {
    "name": "toy-device",
    "vendor": "toy",
    "family": "toy",
    "reference_cluster": "toy-cluster",
    "stack": "megatron-core",
    "memory": {"capacity": "80 GiB", "bandwidth": "3 TB/s", "source": SOURCE},
    "compute": {
        "units": 132,
        "unit": "SM",
        "tile_rows": 128,
        "tile_columns": 256,
        "peak": {"bf16": "989 TFLOP/s", "fp32": "67 TFLOP/s"},
        "source": SOURCE,
    },
    "host": {
        "memory": "256 GiB",
        "memory_bandwidth": "100 GB/s",
        "link": "pcie5",
        "link_bandwidth": "55 GB/s",
        "source": SOURCE,
    },
    "power": {"limit": "700 W", "source": SOURCE},
    "price": {"hourly": "2.5 USD/h", "source": SOURCE},
    "calibration": {
        "matmul_ceiling": 0.75,
        "matmul_half_depth": 128,
        "attention_forward": 0.6,
        "attention_backward": 0.5,
        "attention_half_length": 1024,
        "streaming": 0.85,
        "kernel_latency": "4 us",
        "contention": 1.05,
        "context": "1 GiB",
        "source": SOURCE,
    },
}


@pytest.fixture
def toy_device() -> Callable[..., DeviceEntry]:
    """Give a maker of device entries; keyword arguments replace top-level fields."""
    return lambda **changes: DeviceEntry.model_validate(DEVICE | changes)


@pytest.fixture
def toy_cluster() -> Callable[..., ClusterEntry]:
    """Give a maker of clusters of toy devices: nodes behind a switch, and a fabric between them."""

    def make(devices: int = 8, *, per_node: int = 8, **changes: object) -> ClusterEntry:
        inner = {
            "name": "node",
            "group": per_node,
            "topology": "switch",
            "bandwidth": "450 GB/s",
            "latency": "3 us",
            "efficiency": 0.8,
            "source": SOURCE,
        }
        outer = inner | {"name": "fabric", "group": None, "topology": "fabric", "bandwidth": "50 GB/s"}
        return ClusterEntry.model_validate(
            {
                "name": "toy-cluster",
                "device": DEVICE,
                "devices": devices,
                "devices_per_node": per_node,
                "tiers": [inner, outer],
                "source": SOURCE,
            }
            | changes
        )

    return make


@pytest.fixture
def toy_model() -> Callable[..., ModelEntry]:
    """Give a maker of small dense models; keyword arguments replace fields."""
    return lambda **changes: ModelEntry.model_validate(
        {
            "name": "toy-model",
            "source": SOURCE,
            "layers": 8,
            "hidden": 1024,
            "heads": 8,
            "kv_heads": 4,
            "head_dim": 128,
            "ffn_hidden": 2816,
            "gated_mlp": True,
            "vocab": 32000,
            "tied_embeddings": False,
        }
        | changes
    )


@pytest.fixture
def case_document() -> Callable[..., dict[str, Any]]:
    """Give a maker of case documents; a keyword argument replaces a part, or lays a mapping over it."""

    def make(**changes: object) -> dict[str, Any]:
        document: dict[str, Any] = {
            "id": "toy",
            "precision": "bf16",
            "model": {
                "layers": 8,
                "hidden": 1024,
                "heads": 16,
                "ffn_hidden": 4096,
                "gated_mlp": False,
                "vocab": 50304,
                "tied_embeddings": True,
                "sequence_length": 1024,
            },
            "cluster": {"device": "a100-sxm-80gb", "devices": 16, "devices_per_node": 8},
            "layout": {"tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": 4, "recompute": "none"},
            "batch": {"global_batch": 64, "micro_batch": 2},
        }
        for part, change in changes.items():
            document[part] = document.get(part, {}) | change if isinstance(change, dict) else change
        return document

    return make
