"""Small synthetic entries that tests of the planner share, and how hypothesis searches.

Each run tries the same examples, so that a failure can be seen again; `HYPOTHESIS_PROFILE=explore` tries new ones.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, Run
from hypothesis import settings

from meshwright.catalog.cluster_entry import ClusterEntry, Topology
from meshwright.catalog.device_entry import CalibrationEntry, DeviceEntry, HostLink
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import StackEntry
from meshwright.cli.main import main
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.transformer import transformer_of
from meshwright.hardware.cluster import Cluster, Tier, cluster_of
from meshwright.hardware.device import Device
from meshwright.planner import Plan, plan
from meshwright.planner.accuracy import Accuracy, Case, Estimate, Predicted, accuracy, estimate
from meshwright.planner.accuracy.case import MemoryKind
from meshwright.planner.accuracy.left_out import left_out_estimates

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SOURCE = "made up for a test"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process, as a shell would: arguments in, exit code and both streams out."""

    def call(*words: str | Path) -> Outcome:
        monkeypatch.setattr("sys.argv", ["meshwright", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


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
        "attention_deterministic": 0.5,
        "attention_half_length": 1024,
        "streaming": 0.85,
        "kernel_latency": "4 us",
        "contention": 1.05,
        "workspace": "1 B",
        "context": "1 GiB",
        "communicator": "1 B",
        "source": SOURCE,
    },
}


@pytest.fixture(scope="session")
def toy_device() -> Callable[..., DeviceEntry]:
    """Give a maker of device entries; keyword arguments replace top-level fields."""
    return lambda **changes: DeviceEntry.model_validate(DEVICE | changes)


@pytest.fixture(scope="session")
def toy_cluster() -> Callable[..., ClusterEntry]:
    """Give a maker of clusters of toy devices: nodes behind a switch, and a fabric between them."""

    def make(devices: int = 8, *, per_node: int = 8, **changes: object) -> ClusterEntry:
        inner = {
            "name": "node",
            "group": per_node,
            "topology": "switch",
            "bandwidth": "450 GB/s",
            "latency": "3 us",
            "startup": "10 us",
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def make_estimate(case_document: Callable[..., dict[str, Any]]) -> Callable[..., Estimate]:
    """Give a maker of estimates: of 2 s and of 10, 11 and 12 of 80 GiB if nothing else is said, each of its own id."""
    numbers = count()

    def make(
        measured: dict[str, Any] | None,
        *,
        file: str = "a.yaml",
        step_time_s: float = 2.0,
        gib: int = 10,
        limit: int = 80,
        **changes: Any,  # noqa: ANN401 - parts of a case
    ) -> Estimate:
        counted = {kind: (gib + slack) * 2**30 for slack, kind in enumerate(MemoryKind)}
        predicted = Predicted(
            layout=Layout(),
            step_time_s=step_time_s,
            tokens_per_s=1.0,
            mfu=0.5,
            peak_memory_bytes=counted,
            reported_memory_bytes=counted,
            memory_limit_bytes=limit * 2**30,
            breakdown={"matmul": 0.75 * step_time_s, "bubble": 0.25 * step_time_s},
            memory_breakdown={"parameters": gib * 2**30},
            intervals={},
            wider_because=(),
            assumptions=(),
        )
        case = Case.model_validate(case_document(**{"id": f"case {next(numbers)}"} | changes, measured=measured))
        return Estimate(case=case, file=file, predicted=predicted, failure=None)

    return make


@pytest.fixture(scope="session")
def shipped() -> Accuracy:
    """Give what the shipped measurements say of the cost model."""
    estimates = estimate(sorted((Path(__file__).parents[1] / "catalog" / "measurements").glob("*.yaml")))
    return accuracy(estimates, left_out=left_out_estimates(estimates))


@pytest.fixture(scope="session")
def toy_job(toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]) -> Callable[..., Job]:
    """Give a maker of jobs; keyword arguments beyond the job's own replace fields of the model."""

    def make(devices: int = 8, *, global_batch: int = 16, sequence_length: int = 2048, **model: object) -> Job:
        return Job(
            model=transformer_of(toy_model(**model)),
            cluster=cluster_of(toy_cluster(devices)),
            stack=stack_named("megatron-core").model_copy(update={"schedules": tuple(Schedule)}),
            precision=Precision.BF16,
            global_batch=global_batch,
            sequence_length=sequence_length,
        )

    return make


@pytest.fixture(scope="session")
def toy_plan(toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]) -> Plan:
    """Give a plan of a mixture of experts that needs a pipeline: 16 devices, 32 sequences."""
    model = toy_model(
        layers=12, hidden=4096, heads=32, ffn_hidden=16384, experts={"experts": 8, "top_k": 2, "ffn_hidden": 16384}
    )
    return plan(model, toy_cluster(16), global_batch=32, sequence_length=4096, top=3)


ROUND_CALIBRATION: dict[str, Any] = {
    "matmul_ceiling": 0.5,
    "narrow_matmul_ceiling": 0.4,
    "matmul_half_depth": 100,
    "attention_forward": 0.5,
    "attention_backward": 0.25,
    "attention_deterministic": 0.5,
    "attention_half_length": 1000,
    "streaming": 0.5,
    "kernel_latency": "10 us",
    "contention": 1.0,
    "workspace": "1 B",
    "context": "1 GiB",
    "communicator": "0.25 GiB",
    "source": SOURCE,
}

ROUND_STACK: dict[str, Any] = {
    "axes": ["tensor", "sequence", "context", "pipeline", "expert"],
    "context_methods": ["ring", "all-gather", "ulysses", "hybrid"],
    "repeats_key_values": False,
    "axis_orders": ["tp-cp-dp-pp", "tp-cp-pp-dp"],
    "schedules": ["gpipe", "1f1b", "interleaved", "zb-h1", "zb-2p"],
    "splits": "any",
    "recompute_by": "stage",
    "name": "round",
    "source": SOURCE,
    "fused_attention": True,
    "fused_attention_on_request": False,
    "softmax_batch": 4,
    "ampere_attention": False,
    "attention_share": 1.0,
    "statistics_bytes": 4,
    "deterministic": False,
    "expert_launch": "1 ns",
    "fused_norm": True,
    "fused_rotary": True,
    "fused_activation": True,
    "fused_residual": True,
    "compiled": False,
    "permutation_bytes": 8,
    "fused_accumulation": True,
    "dummy_gradients": False,
    "selective_recompute": ["attention_core"],
    "spared_products": 0,
    "narrow_inputs": False,
    "dynamic_scaling": False,
    "narrow_parameters": False,
    "loss": "fused",
    "logits_bytes": 10,
    "dropout": False,
    "gradient_bytes": 4,
    "fp16_gradient_bytes": 2,
    "keeps_narrow_gradients": False,
    "reduce_bytes": 4,
    "gather_bytes": 2,
    "quantised_reduction": False,
    "master_bytes": 4,
    "overlap_gradients": False,
    "overlap_parameters": False,
    "overlap_tensor": False,
    "hides_tensor_sums": True,
    "narrow_tensor_gathers": False,
    "overlap_pipeline": False,
    "deduplicated_dispatch": False,
    "vocabulary_parallel": True,
    "split_messages": False,
    "partitions": ["uniform"],
    "hybrid_stages": [],
    "keeps_stage_outputs": False,
    "micro_batch_a_stage": False,
    "steps_together": True,
    "reshard_in_pipeline": True,
    "defers_synchronisation": False,
    "packs_gradients": False,
    "unpacks_parameters": False,
    "gather_efficiency": 1.0,
    "gathers_per_layer": 1,
    "layer_launch": "1 ns",
    "collective_launch": "1 ns",
    "step_overhead": "1 ms",
    "loaded_kernels": "0.5 GiB",
    "allocator_slack": 0.5,
    "flat_optimizer": False,
    "reports_first_step": False,
}

ROUND_MODEL: dict[str, Any] = {
    "name": "round",
    "source": SOURCE,
    "layers": 8,
    "hidden": 1024,
    "heads": 8,
    "kv_heads": 8,
    "head_dim": 128,
    "ffn_hidden": 4096,
    "gated_mlp": False,
    "vocab": 51200,
    "tied_embeddings": False,
}


@pytest.fixture(scope="session")
def round_cluster() -> Callable[..., Cluster]:
    """Give a maker of clusters on which times can be worked out by hand.

    A device: 100 TFLOP/s at 16 bits (half of it sustained) and 200 at 8, 1 TB/s (half sustained), 100 units with
    tiles of 100 x 100, 10 us a kernel. A node of 4: a switch of 100 GB/s, 1 us; between nodes 10 GB/s, 10 us; half of
    both sustained. `device` and `calibration` replace fields of the device, `node` and `fabric` of its tiers.
    """

    def make(
        devices: int = 16,
        *,
        per_node: int = 4,
        device: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
        node: Mapping[str, Any] | None = None,
        fabric: Mapping[str, Any] | None = None,
    ) -> Cluster:
        base = Device(
            name="round",
            vendor="round",
            family="round",
            memory_bytes=80 * 2**30,
            memory_bandwidth_bytes_per_s=1e12,
            compute_units=100,
            tile_rows=100,
            tile_columns=100,
            peak_flop_per_s={Precision.BF16: 1e14, Precision.FP16: 1e14, Precision.FP8: 2e14},
            exponentials_per_s=None,
            host_memory_bytes=2**40,
            host_memory_bandwidth_bytes_per_s=1e11,
            host_link=HostLink.PCIE5,
            host_link_bandwidth_bytes_per_s=5e10,
            power_w=500.0,
            price_usd_per_hour=1.0,
            calibration=CalibrationEntry.model_validate(ROUND_CALIBRATION).model_copy(update=calibration),
        )
        inner = Tier(
            name="node",
            group=per_node,
            topology=Topology.SWITCH,
            bandwidth_bytes_per_s=1e11,
            link_devices=1,
            latency_s=1e-6,
            startup_s=0.0,
            efficiency=0.5,
            oversubscription=1.0,
            in_network_reduction=None,
        )
        outer = replace(inner, name="fabric", group=devices, topology=Topology.FABRIC)
        outer = replace(outer, bandwidth_bytes_per_s=1e10, latency_s=1e-5)
        return Cluster(
            name="round",
            device=replace(base, **(device or {})),
            devices=devices,
            devices_per_node=per_node,
            tiers=(replace(inner, **(node or {})), replace(outer, **(fabric or {}))),
        )

    return make


@pytest.fixture(scope="session")
def round_job(round_cluster: Callable[..., Cluster]) -> Callable[..., Job]:
    """Give a maker of jobs on round clusters.

    `model` and `stack` replace fields of a model of GPT's shape and of a stack that overlaps nothing; `cluster` are
    the keywords of the cluster.
    """

    def make(
        *,
        model: Mapping[str, Any] | None = None,
        stack: Mapping[str, Any] | None = None,
        cluster: Mapping[str, Any] | None = None,
        precision: Precision = Precision.BF16,
        global_batch: int = 16,
        sequence_length: int = 1000,
    ) -> Job:
        return Job(
            model=transformer_of(ModelEntry.model_validate(ROUND_MODEL | dict(model or {}))),
            cluster=round_cluster(**(cluster or {})),
            stack=StackEntry.model_validate(ROUND_STACK).model_copy(update=stack),
            precision=precision,
            global_batch=global_batch,
            sequence_length=sequence_length,
        )

    return make
