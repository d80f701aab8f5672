"""`plan`: what it takes, what it refuses, and what it makes of real models and machines."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import Infeasible, InputError, MissingData
from meshwright.catalog.lookup import find_cluster, find_model
from meshwright.catalog.model_entry import ModelEntry
from meshwright.planner import check_plan, inputs_of, plan
from meshwright.planner.job_inputs import inputs_today, job_of

JOB: dict[str, Any] = {
    "global_batch": 1024,
    "sequence_length": 8192,
    "precision": "bf16",
    "objective": "time",
    "top": 5,
    "memory_headroom": 0.05,
}


def test_names_are_matched_as_people_type_them() -> None:
    typed = inputs_of("Llama 3.1_70B", "DGX-H100:64", **JOB)
    assert typed == inputs_of("llama-3.1-70b", "dgx-h100:64", **JOB)
    assert typed.cluster.entry.devices == 64
    assert typed.cluster.entry.device == typed.device.entry.name == "h100-sxm-80gb"
    assert typed.stack.entry.name == typed.device.entry.stack
    assert [typed.model.from_catalog, typed.cluster.from_catalog, typed.device.from_catalog] == [True] * 3


def test_files_stay_as_they_were_when_read(tmp_path: Path) -> None:
    """A cluster's file that names a catalog device: the cluster is the user's, the device the catalog's."""
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(find_model("llama-3.1-8b").model_dump(mode="json")))
    (tmp_path / "cluster.json").write_text(json.dumps(find_cluster("dgx-h100:16").model_dump(mode="json")))
    inputs = inputs_of(tmp_path / "model.yaml", f"{tmp_path}/cluster.json:8", **JOB)
    assert not inputs.model.from_catalog
    assert not inputs.cluster.from_catalog
    assert inputs.device.from_catalog
    assert inputs.cluster.entry.devices == 8
    (tmp_path / "model.yaml").unlink()
    assert inputs_today(inputs) == inputs


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        inputs_of(Path("llama-3.1-8b"), "dgx-h100", **JOB)


def test_a_device_written_out_in_a_cluster_is_embedded_once(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    inputs = inputs_of(toy_model(), toy_cluster(8), **JOB)
    assert inputs.cluster.entry.device == "toy-device"
    assert not inputs.device.from_catalog
    assert job_of(inputs).cluster.device.memory_bytes == 80 * 2**30
    assert job_of(inputs, devices=4).cluster.devices == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("global_batch", 0),
        ("global_batch", -8),
        ("global_batch", 10**12),
        ("global_batch", 1.5),
        ("global_batch", "many"),
        ("global_batch", True),
        ("sequence_length", 0),
        ("precision", "bf17"),
        ("objective", "speed"),
        ("top", -1),
        ("memory_headroom", 1.0),
        ("memory_headroom", -0.1),
        ("memory_headroom", float("nan")),
    ],
)
def test_a_job_out_of_range(field: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        inputs_of("llama-3.1-8b", "dgx-h100:8", **JOB | {field: value})
    assert caught.value.path == field


def test_misspelt_names_get_the_nearest() -> None:
    for model, cluster, stack in (("lama-3.1-8b", "dgx-h100", None), ("llama-3.1-8b", "dgx-h10", None)):
        with pytest.raises(InputError) as caught:
            inputs_of(model, cluster, stack=stack, **JOB)
        assert "did you mean" in caught.value.hint
    with pytest.raises(InputError, match="no stack is called 'megatron-kore'"):
        inputs_of("llama-3.1-8b", "dgx-h100", stack="megatron-kore", **JOB)


def test_a_precision_that_the_device_lacks() -> None:
    with pytest.raises(MissingData, match="no nvfp4 peak for h100-sxm-80gb"):
        plan("llama-3.1-8b", "dgx-h100:8", global_batch=8, sequence_length=2048, precision="nvfp4")


def test_no_price_no_cost(
    toy_model: Callable[..., ModelEntry],
    toy_cluster: Callable[..., ClusterEntry],
    toy_device: Callable[..., DeviceEntry],
) -> None:
    cluster = toy_cluster(8, device=toy_device(price=None).model_dump(mode="json"))
    with pytest.raises(MissingData, match="no price for toy-device"):
        plan(toy_model(), cluster, global_batch=8, sequence_length=2048, objective="cost")
    made = plan(toy_model(), cluster, global_batch=8, sequence_length=2048)
    assert made.predicted.usd_per_million_tokens is None


def test_least_cost_keeps_nodes_whole(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    """A model this small is cheapest on as little as may be used of 48 devices: one node of 8."""
    made = plan(toy_model(), toy_cluster(48), global_batch=96, sequence_length=2048, objective="cost")
    assert made.mesh.devices == made.layout.layout().world_size == 8
    assert made.inputs.cluster.entry.devices == 48


def test_a_model_too_large_for_its_cluster() -> None:
    with pytest.raises(Infeasible, match=r"no layout of llama-3\.1-405b on 8 devices") as caught:
        plan("llama-3.1-405b", "dgx-h100:8", global_batch=16, sequence_length=8192)
    assert "GiB" in caught.value.nearest_miss


def test_headroom_is_kept_free() -> None:
    made = plan("llama-3.1-8b", "dgx-h100:8", global_batch=64, sequence_length=8192, memory_headroom=0.4)
    capacity = made.inputs.device.entry.memory.capacity
    assert made.predicted.peak_memory_bytes.nvidia_smi <= 0.6 * capacity
    assert made.predicted.memory_limit_bytes == pytest.approx(0.6 * capacity)


def test_a_sequence_longer_than_the_learned_positions_is_refused() -> None:
    with pytest.raises(InputError, match="gpt3-175b has learned only 2048 positions") as caught:
        plan("gpt3-175b", "selene:64", global_batch=64, sequence_length=4096)
    assert caught.value.path == "sequence_length"


@pytest.mark.parametrize(("argument", "value"), [("model", 5), ("cluster", None), ("stack", ["megatron-core"])])
def test_what_is_no_name_is_told(argument: str, value: object) -> None:
    named: dict[str, Any] = {"model": "llama-3.1-8b", "cluster": "dgx-h100:8", "stack": None} | {argument: value}
    with pytest.raises(InputError, match="must be a name, a path or an entry, not") as caught:
        plan(**named, global_batch=8, sequence_length=4096)
    assert caught.value.path == argument


def test_a_bus_alone_joins_no_nodes() -> None:
    with pytest.raises(MissingData, match="pcie-box has no network between nodes of 8 devices, and 24 are asked for"):
        plan("llama-3.1-8b", "pcie-box:24", global_batch=24, sequence_length=4096)


@pytest.mark.parametrize(("device", "path"), [("h101", "device"), ("gone.yaml", "")])
def test_a_cluster_of_an_unknown_device_is_an_error_in_its_file(tmp_path: Path, device: str, path: str) -> None:
    file = tmp_path / "mine.yaml"
    shipped = (files("meshwright.catalog") / "clusters" / "dgx-h100.yaml").read_text("utf-8")
    file.write_text(shipped.replace("device: h100-sxm-80gb", f"device: {device}"))
    with pytest.raises(InputError) as caught:
        plan("llama-3.1-8b", str(file), global_batch=8, sequence_length=4096)
    assert caught.value.file.startswith(str(tmp_path))
    assert caught.value.path == path


def test_an_unknown_stack_of_a_user_s_device_is_an_error_in_its_file(tmp_path: Path) -> None:
    catalog = files("meshwright.catalog")
    device = yaml.safe_load((catalog / "devices" / "h100-sxm-80gb.yaml").read_text("utf-8")) | {"stack": "megatron-cor"}
    cluster = yaml.safe_load((catalog / "clusters" / "dgx-h100.yaml").read_text("utf-8"))
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(device))
    for written, file, path in (("device.yaml", "device.yaml", "stack"), (device, "cluster.yaml", "device.stack")):
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster | {"device": written}))
        with pytest.raises(InputError, match="no stack is called 'megatron-cor'") as caught:
            plan("llama-3.1-8b", tmp_path / "cluster.yaml", global_batch=8, sequence_length=4096)
        assert (caught.value.file, caught.value.path) == (str(tmp_path / file), path)
        assert "megatron-core" in caught.value.hint


def test_a_device_file_beside_a_cluster_file_is_read_and_embedded(tmp_path: Path) -> None:
    catalog = files("meshwright.catalog")
    cluster = (catalog / "clusters" / "dgx-h100.yaml").read_text("utf-8")
    device = (catalog / "devices" / "h100-sxm-80gb.yaml").read_text("utf-8")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "mine.yaml").write_text(device.replace("name: h100-sxm-80gb", "name: my-device"))
    (tmp_path / "mine.yaml").write_text(cluster.replace("device: h100-sxm-80gb", "device: dev/mine.yaml"))
    made = plan("llama-3.1-8b", f"{tmp_path / 'mine.yaml'}:8", global_batch=8, sequence_length=4096)
    shipped = plan("llama-3.1-8b", "dgx-h100:8", global_batch=8, sequence_length=4096)
    assert made.inputs.device.entry.name == "my-device"
    assert not made.inputs.device.from_catalog
    assert made.predicted == shipped.predicted
    assert check_plan(made) == ()


def test_dropout_is_on_where_software_and_model_have_it(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    def dropout(stack: str, **model: object) -> bool:
        made = plan(toy_model(**model), toy_cluster(8), stack=stack, global_batch=16, sequence_length=1024, top=1)
        return job_of(made.inputs).stack.dropout

    assert not dropout("megatron-lm-main")
    assert dropout("megatron-lm-main", gated_mlp=False)
    assert dropout("megatron-lm-main", dropout=True)
    assert not dropout("megatron-lm-main", gated_mlp=False, dropout=False)
    assert not dropout("megatron-core", dropout=True)
