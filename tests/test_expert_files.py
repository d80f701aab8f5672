"""Routing and placements in files: what engines write and read, and what nobody should have written."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eplb_baseline import eplb_global
from expert_files import save, small, written
from expert_instances import chain, loads
from typer.testing import CliRunner

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.cli.app import app
from meshwright.planner import place_experts
from meshwright.planner.experts.array_file import MAXIMUM_BYTES
from meshwright.planner.experts.counting import counted
from meshwright.planner.experts.filling import filled_lightly
from meshwright.planner.experts.formats import eplb
from meshwright.planner.experts.output import even_loads
from meshwright.planner.experts.placement_file import load_placement_file, read_placement
from meshwright.planner.experts.routing_file import read_routing
from meshwright.planner.experts.serving import ServingTarget, serving_files


@pytest.mark.parametrize("name", ["placement.json", "eplb.npz", "vllm.json", "vllm_ascend.json", "megatron.json"])
def test_each_format_is_read_back(name: str, tmp_path: Path) -> None:
    placement = small()
    assert (read_placement(written(placement, tmp_path) / name) == placement.placement).all()


def test_sglang_gets_its_map_alone_with_a_row_for_each_layer_of_the_model(tmp_path: Path) -> None:
    placement = small()
    file = written(placement, tmp_path) / "sglang.json"
    document = json.loads(file.read_text())
    assert list(document) == ["physical_to_logical_map"]
    rows = read_placement(file)
    assert rows[0].tolist() == [*range(24), 0, 1, 2, 3]
    assert (rows[1:] == placement.placement).all()


def test_eplb_maps_worked_out_by_hand() -> None:
    maps = eplb.maps(np.array([[2, 0, 1, 0]]), devices=2)
    assert maps["log2phy"].tolist() == [[[1, 3], [2, -1], [0, -1]]]
    assert maps["logcnt"].tolist() == [[2, 1, 1]]


def test_vllm_ascend_has_the_keys_that_it_reads(tmp_path: Path) -> None:
    placement = small()
    document = json.loads((written(placement, tmp_path) / "vllm_ascend.json").read_text())
    assert document["moe_layer_count"] == 3
    layer = document["layer_list"][2]
    assert (layer["layer_id"], layer["device_count"]) == (2, 4)
    assert layer["device_list"][1] == {"device_id": 1, "device_expert": placement.by_device[2, 1].tolist()}


def test_engines_get_no_empty_slots(tmp_path: Path) -> None:
    placement = place_experts([[3.0, 1.0]] * 3, devices=2, slots=6)
    assert (placement.placement == -1).any()
    folder = written(placement, tmp_path)
    for name in ("eplb.npz", "vllm.json", "vllm_ascend.json"):
        rows = read_placement(folder / name)
        assert rows.min() == 0
        assert even_loads(np.array([[3.0, 1.0]] * 3), rows, devices=2).max() >= 1.0
    assert (read_placement(folder / "megatron.json") >= 0).all()


# Slots better left empty: copies of experts that are elsewhere too change what their replicas get.
LEFT_EMPTY = (
    (5, 20, [0.2247, 0.1375, 5.2704, 1.4553, 0.2648, 0.2428, 0.9243]),
    (6, 24, [0.9247, 0.8995, 0.5145, 0.8113, 0.2840, 0.8110, 0.8179]),
)


@pytest.mark.parametrize(("devices", "slots", "weights"), LEFT_EMPTY)
def test_engines_get_what_is_said_where_slots_are_filled(
    devices: int, slots: int, weights: list[float], tmp_path: Path
) -> None:
    placement = place_experts([weights] * 3, devices=devices, slots=slots)
    assert (placement.placement == -1).any()
    folder = written(placement, tmp_path)
    counts = [read_placement(folder / "vllm.json")[0].tolist().count(expert) for expert in range(len(weights))]
    rows = read_placement(folder / "vllm.json")[0].reshape(devices, -1).tolist()
    heaviest = max(sum(weights[expert] / counts[expert] for expert in row) for row in rows) * devices / sum(weights)
    assert placement.filled_over_mean is not None
    assert heaviest == pytest.approx(placement.filled_over_mean[0], rel=1e-12)
    baseline = eplb_global(np.array([weights]), slots=slots, devices=devices)
    assert heaviest <= even_loads(np.array([weights]), baseline.reshape(1, -1), devices=devices).max() * (1 + 1e-12)
    file = load_placement_file(folder / "placement.json")
    assert file.served_over_mean == pytest.approx(heaviest)
    vllm = serving_files(file, ServingTarget.VLLM)
    assert f"the busiest has {heaviest:.4f} of the mean" in vllm["run.sh"]
    assert vllm["expert_locations.json"] == (folder / "vllm.json").read_text()


def test_experts_whose_devices_all_have_room_fill_it_without_a_change() -> None:
    # Expert 1 is on devices 0 and 1, each with an empty slot: four copies share as two do.
    rows = filled_lightly(np.array([[6.0, 4.0, 6.0]]), np.array([[0, 1, -1, 2, 1, -1]]), devices=2)
    assert rows.tolist() in ([[0, 1, 0, 2, 1, 2]], [[0, 1, 1, 2, 1, 1]])
    # Nothing is alone on device 1: expert 0 there would take load from device 0, and is the lightest choice.
    weights = np.array([[4.0, 4.0, 3.0]])
    found = filled_lightly(weights, np.array([[0, 1, 2, 0, 1, -1]]), devices=2)
    assert even_loads(weights, found, devices=2).max() == pytest.approx((2 + 4 / 3 + 3) / 5.5)


def test_the_placement_file_is_whole_and_versioned(tmp_path: Path) -> None:
    file = written(small(), tmp_path) / "placement.json"
    found = load_placement_file(file)
    assert (found.layers, found.model_layers, found.experts, found.devices) == ([1, 2, 3], 4, 24, 4)
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"version": 2}))
    with pytest.raises(InputError, match="newer meshwright"):
        load_placement_file(file)
    file.write_text(json.dumps(document | {"slots": 24}))
    with pytest.raises(InputError, match="24 slots in each of 3 layers"):
        load_placement_file(file)


COUNTS = [[1.0, 2.0, 3.0], [4.0, 0.0, 2.0]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.npy", np.array(COUNTS)),
        ("a.npy", np.asfortranarray(COUNTS)),
        ("a.npz", {"loads": np.array(COUNTS)}),
        ("a.json", COUNTS),
        ("a.json", {"logical_count": COUNTS, "tokens": 12, "model": "x"}),
        # SGLang's buffer of steps adds up.
        ("a.npz", {"logical_count": np.array([[[1, 0, 3], [4, 0, 1]], [[0, 2, 0], [0, 0, 1]]])}),
        ("a.csv", "1,2,3\n4,0,2\n"),
        ("a.csv", "first,second,third\n1,2,3\n\n4,0,2\n"),
    ],
)
def test_loads_are_read_from_each_kind_of_file(name: str, value: object, tmp_path: Path) -> None:
    assert read_routing(save(tmp_path / name, value)).routing.loads.tolist() == COUNTS


def torch_dump(
    path: Path, counts: np.ndarray, *, name: tuple[str, str] = ("torch._utils", "_rebuild_tensor_v2")
) -> Path:
    """What torch.save writes for {"rank": 0, "logical_count": tensor}, without torch."""

    class Storage:
        pass

    class Name:
        def __init__(self, module: str, name: str) -> None:
            self.module, self.name = module, name

    class Pickler(pickle._Pickler):  # the one in Python, so that names can be written that aren't there
        def persistent_id(self, value: object) -> object:
            return (
                ("storage", Name("torch", "LongStorage"), "0", "cpu", counts.size)
                if isinstance(value, Storage)
                else None
            )

        def save(self, value: object, save_persistent_id: bool = True) -> None:
            if isinstance(value, Name):
                self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, np.ndarray):
                strides = tuple(step // value.itemsize for step in value.strides)
                self.save(Name(*name))
                self.save((Storage(), 0, value.shape, strides, False, {}))
                self.write(pickle.REDUCE)
            else:
                super().save(value, save_persistent_id)

    content = io.BytesIO()
    Pickler(content, protocol=2).dump({"rank": 0, "logical_count": counts})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dump/data.pkl", content.getvalue())
        archive.writestr("dump/data/0", counts.tobytes())
    return path


def test_a_dump_of_sglang_is_read_without_torch(tmp_path: Path) -> None:
    counts = np.array([[[1, 0, 3], [4, 0, 1]], [[0, 2, 0], [0, 0, 1]]], np.int64)
    assert read_routing(torch_dump(tmp_path / "dump.pt", counts)).routing.loads.tolist() == COUNTS


def test_a_dump_that_names_anything_else_is_refused(tmp_path: Path) -> None:
    file = torch_dump(tmp_path / "dump.pt", np.ones((1, 2), np.int64), name=("os", "system"))
    with pytest.raises(InputError, match=r"it names os\.system"):
        read_routing(file)


def test_layers_without_experts_are_left_out_where_the_model_says_so(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", {"logical_count": [[0, 0, 0], *COUNTS]})
    found = read_routing(file, dense=frozenset({0}), experts=3)
    assert (found.at, found.model_layers) == ((1, 2), 3)
    assert found.routing.loads.tolist() == COUNTS
    with pytest.raises(InputError, match="no expert of layer 0"):
        read_routing(file)


def test_loads_of_the_layers_with_experts_alone_are_those_of_the_model(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", COUNTS)
    found = read_routing(file, dense=frozenset({0}), layers=3, experts=3)
    assert (found.at, found.model_layers) == ((1, 2), 3)
    assert read_routing(file, dense=frozenset(), layers=2).at == (0, 1)
    assert read_routing(file, dense=frozenset({0}), layers=9).model_layers == 2


def test_a_placement_that_is_there_may_be_any() -> None:
    first = place_experts(COUNTS, devices=3)
    assert place_experts(COUNTS, devices=3, previous=first).moved == 0
    # Expert 2 was nowhere, and expert 0 twice on a device.
    assert place_experts(COUNTS, devices=1, slots=3, previous=[[0, 0, 1]] * 2).moved == 2


def test_a_trace_is_counted_by_hand() -> None:
    # Token 0 goes to 0, 1 then to 1, 2; token 1 to 0, 2 then to 0, 1.
    trace = np.array([[[0, 1], [1, 2]], [[0, 2], [0, 1]]])
    counts, moves = counted(trace, experts=None, file="")
    assert counts.tolist() == [[2, 1, 1], [1, 2, 1]]
    assert moves.tolist() == [[[0.5, 1.0, 0.5], [0.0, 0.5, 0.5], [0.5, 0.5, 0.0]]]
    assert moves[0].sum(axis=1).tolist() == counts[0].tolist()


class Planted:
    """What would run if a pickle were loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("planted"),))  # type: ignore[return-value]


BAD = [
    ("a.npy", np.array([[1.0, np.nan]]), "loads.0.1: nan isn't a finite number"),
    ("a.npy", np.array([[1.0, -2.0]]), "loads.0.1: -2 is negative"),
    ("a.npy", np.array([[1.0, 2.0], [0.0, 0.0]]), "no expert of layer 1"),
    ("a.npy", np.zeros((0, 4)), "must be [layers, experts]"),
    ("a.npy", np.ones((2, 2, 2, 2)), "must be [layers, experts]"),
    ("a.npy", np.array([[Planted()]], dtype=object), "holds Python objects, which are never loaded"),
    ("a.npy", np.array([["1"]]), "must be numbers"),
    ("a.json", [[1, 2], [3]], "rows"),
    ("a.json", {"a": 1}, "holds neither loads nor a trace"),
    ("a.json", "[[1, 2], [3", "is not valid JSON"),
    ("a.json", [[1, "x"]], "must be an array of numbers"),
    ("a.csv", "1,2\n3\n", "rows of 1 and of 2 numbers"),
    ("a.csv", "1,2\nx,y\n", "line 2, column 1: 'x' isn't a number"),
    ("a.csv", "1,x\n3,4\n", "line 1, column 2: 'x' isn't a number"),
    ("a.csv", "1;2\n3;4\n", "line 1, column 1: '1;2' isn't a number"),
    ("a.csv", "1,1_000\n", "line 1, column 2: '1_000' isn't a number"),
    ("a.csv", "", "no rows of numbers"),
    ("a.npy", np.array([[1.0, 5e-324]]), "loads.0.1: is below 1e-100"),
    ("a.npz", {"loads": np.ones((2, 3)), "transitions": np.ones((3, 3))}, "must be of shape [1, 3, 3]"),
    ("a.npz", {"loads": np.ones((2, 3)), "tokens": np.ones((2, 4, 5))}, "with 2 layers and 3 experts"),
    ("a.npz", {"trace": np.array([[0, -1]])}, "must be experts from 0"),
    ("a.npz", {"trace": np.array([[0.5, 1.0]])}, "whole numbers of experts"),
    ("a.txt", "1 2", "is of no kind that is read"),
    ("a.npy", np.array([[7, 1, 1], [1, 7, 1], [1, 1, 7], [11, 11, 11]]), "looks like [experts, layers]"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_bad_routing_is_told_and_nothing_is_written(
    name: str, value: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = save(tmp_path / name, value)
    result = CliRunner().invoke(app, ["experts", str(file), "--devices", "1", "-o", "out"])
    assert isinstance(result.exception, InputError)
    assert said in result.exception.message
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_files_that_are_too_large_or_cut_short_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.npy"
    with large.open("wb") as stream:
        stream.truncate(2 * MAXIMUM_BYTES)
    with pytest.raises(InputError, match="1024 MiB; at most 512 MiB"):
        read_routing(large)
    promise = io.BytesIO()
    np.lib.format.write_array_header_1_0(promise, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "<f8"})
    (tmp_path / "short.npy").write_bytes(promise.getvalue() + b"\0" * 64)
    with pytest.raises(InputError, match="has 64 bytes where its shape"):
        read_routing(tmp_path / "short.npy")
    (tmp_path / "no.npz").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="not a whole"):
        read_routing(tmp_path / "no.npz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"devices": 0}, "devices: 0"),
        ({"devices": 4, "nodes": 3}, "3 nodes don't divide 4 devices"),
        ({"devices": 4, "slots": 4}, "4 are fewer than the 6 experts"),
        ({"devices": 4, "slots": 10}, "4 devices don't divide 10 slots"),
        ({"devices": 2, "objective": "traffic"}, "needs to know where tokens come from"),
        ({"devices": 2, "load_cap": 0.5}, "at least 1"),
        ({"devices": 2, "load_cap": 1.5, "objective": "balance"}, "balance saves none"),
        ({"devices": "2"}, "devices: '2' isn't a whole number"),
        ({"devices": 2, "slots": 8.0}, "slots: 8.0 isn't a whole number"),
        ({"devices": 2, "time_limit_s": 0.0}, "isn't above 0"),
        ({"devices": 2, "time_limit_s": float("nan")}, "isn't above 0"),
        ({"devices": 2, "dispatch": "nearest"}, "no dispatch is called 'nearest'"),
        ({"devices": 2, "objective": "ballance"}, "no objective is called 'ballance'"),
        ({"devices": 2, "previous": [[0, 1, 2]]}, "must be experts [layers, slots]"),
        ({"devices": 2, "previous": [[0, 1, 2, 3, 4, 9]] * 2}, "holds experts that aren't"),
        ({"devices": 2, "slots": 100_000}, "are more than 65536"),
        ({"devices": 2, "tokens": np.ones((2, 3, 6))}, "are from 3 devices, not 2"),
    ],
)
def test_bad_arguments_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        place_experts(np.ones((2, 6)), **options)
    assert said in caught.value.message


def test_memory_that_is_too_small_is_told() -> None:
    with pytest.raises(Infeasible, match="3 slots in each of 2 layers are 6 experts a device, and its memory holds 5"):
        place_experts(np.ones((2, 6)), devices=2, most_on_device=5)


def test_a_cluster_without_a_model_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", COUNTS)
    result = CliRunner().invoke(app, ["experts", str(file), "--devices", "1", "--cluster", "nope"])
    assert isinstance(result.exception, InputError)
    assert "--cluster: says nothing without the model" in result.exception.message
    result = CliRunner().invoke(app, ["experts", str(file), "--devices", "1", "--overlay", "nope.yaml"])
    assert isinstance(result.exception, InputError)
    assert "--overlay: says nothing without the cluster" in result.exception.message


def test_the_command_writes_all_files_and_the_same_bytes_again(tmp_path: Path) -> None:
    counts, moves = chain(4, 8)
    file = save(tmp_path / "a.npz", {"loads": counts, "transitions": moves})
    arguments = ["experts", str(file), "--devices", "4", "--nodes", "2", "--json"]
    first = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "one")], catch_exceptions=False)
    CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "two")], catch_exceptions=False)
    document = json.loads(first.stdout)
    names = {
        "placement.json",
        "eplb.npz",
        "sglang.json",
        "vllm.json",
        "vllm_ascend.json",
        "megatron.json",
        "heat_map.svg",
    }
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    assert len(document["max_over_mean"]["layers"]) == 4
    assert document["cross_node"] < document["cross_device"]
    assert {"seconds", "method", "status", "gap", "lower_bound", "placement"} <= set(document)


def test_the_command_knows_memory_bytes_to_move_and_seconds(tmp_path: Path) -> None:
    counts = loads(32, 8, "lognormal")
    file = save(tmp_path / "a.npy", counts)
    arguments = ["experts", str(file), "--devices", "4", "--model", "mixtral-8x7b"]
    runner = CliRunner()
    folder = tmp_path / "out"
    assert runner.invoke(app, [*arguments, "-o", str(folder)]).exit_code == 0
    again = [*arguments, "--cluster", "dgx-h100:4", "--previous", str(folder / "eplb.npz"), "--json"]
    document = json.loads(runner.invoke(app, again, catch_exceptions=False).stdout)
    assert (document["moved"], document["moved_bytes"]) == (0, 0)
    assert document["layer_s"]["after"] == pytest.approx(document["layer_s"]["before"])
    slow = {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.1, "streaming": 0.1}}}}
    (tmp_path / "slow.json").write_text(json.dumps({"version": 1, "source": "by hand", **slow}), "utf-8")
    laid = [*again, "--overlay", str(tmp_path / "slow.json")]
    under = json.loads(runner.invoke(app, laid, catch_exceptions=False).stdout)
    assert under["layer_s"]["after"] > 1.2 * document["layer_s"]["after"]
    # 3 x 4096 x 14336 weights of 2 bytes: 352 MB an expert, and 64 on a device 22.5 GB.
    tight = runner.invoke(app, [*arguments, "--memory-per-device", "22 GB"])
    assert isinstance(tight.exception, Infeasible)
    assert "64 experts a device, and its memory holds 62" in tight.exception.message
    assert runner.invoke(app, [*arguments, "--memory-per-device", "23 GB"]).exit_code == 0
