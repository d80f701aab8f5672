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
from expert_instances import chain, loads
from typer.testing import CliRunner

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.cli.app import app
from meshwright.planner import place_experts
from meshwright.planner.experts import Placement
from meshwright.planner.experts.array_file import MAXIMUM_BYTES
from meshwright.planner.experts.counting import counted
from meshwright.planner.experts.filling import filled_lightly
from meshwright.planner.experts.formats import eplb
from meshwright.planner.experts.output import even_loads, in_turn, placement_files
from meshwright.planner.experts.placement_file import load_placement_file, read_placement
from meshwright.planner.experts.routing_file import read_routing
from meshwright.planner.experts.serving import ServingTarget, serving_files


def small() -> Placement:
    return place_experts(loads(3, 24, "lognormal", seed=3), devices=4, slots=28)


def written(placement: Placement, folder: Path) -> Path:
    for name, content in placement_files(placement, at=(1, 2, 3), model_layers=4).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


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


def save(path: Path, value: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, value, allow_pickle=True)
    elif path.suffix == ".npz":
        assert isinstance(value, dict)
        np.savez(path, **value)
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


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


def test_experts_in_turn_are_what_engines_start_with() -> None:
    assert in_turn(1, 3, 4).tolist() == [[0, 1, 2, 0]]
    # Expert 0 of load 4 has half on each device.
    assert even_loads(np.array([[4.0, 1.0, 1.0]]), in_turn(1, 3, 4), devices=2).tolist() == [[1.0, 1.0]]


def test_served_placements_name_the_options_of_their_engine(tmp_path: Path) -> None:
    placed = load_placement_file(written(small(), tmp_path) / "placement.json")
    sglang = serving_files(placed, ServingTarget.SGLANG)
    assert "--ep-size 4" in sglang["run.sh"]
    assert "--ep-num-redundant-experts 4" in sglang["run.sh"]
    assert '--init-expert-location "$here/expert_locations.json"' in sglang["run.sh"]
    assert sglang["expert_locations.json"] == (tmp_path / "sglang.json").read_text()
    vllm = serving_files(placed, ServingTarget.VLLM)
    assert """--eplb-config '{"num_redundant_experts": 4}'""" in vllm["run.sh"]
    assert json.loads(vllm["expert_locations.json"]) == small().placement.tolist()
    (tmp_path / "again.json").write_text(sglang["placement.json"])
    assert load_placement_file(tmp_path / "again.json") == placed


def test_a_placement_is_emitted_from_the_command_line(tmp_path: Path) -> None:
    file = written(small(), tmp_path) / "placement.json"
    arguments = ["emit", str(file), "--target", "sglang", "-o", str(tmp_path / "serve"), "--json"]
    document = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert [Path(path).name for path in document["files"]] == ["run.sh", "expert_locations.json", "placement.json"]
    assert (tmp_path / "serve" / "run.sh").stat().st_mode & 0o111
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, InputError)


EDITED: list[tuple[dict[str, object], str]] = [
    ({"layers": [1, 2, 1000]}, "layers: layer 1000 isn't of the model's 4, counted from 0"),
    ({"layers": [1, 2, 2]}, "layers: must each be another layer"),
    ({"model_layers": 10**9}, "model_layers: 1000000000 layers of 28 slots are more than"),
    ({"experts": 5}, "placement: layer 0: there is no expert 5"),
    ({"experts": 30}, "experts: 30 are more than the 28 slots"),
    ({"placement": [[0] * 28] * 3}, "placement: layer 0: no slot holds expert 1"),
    ({"placement": [[-1] * 28] * 3}, "placement: layer 0: no slot holds expert 0"),
    ({"placement": [[*range(24), 23, 22, 21, 20]] * 3}, "placement: layer 0: device 3 holds an expert twice"),
    ({"placement": [[*range(24), 1, 2, 3, 10**6]] * 3}, "placement: layer 0: there is no expert 1000000"),
    ({"placement": [], "layers": []}, "placement: must have a layer"),
    ({"filled": [[0] * 28] * 3}, "filled: must have an expert in each slot"),
    ({"filled": [[*range(24)]] * 3}, "filled: must have an expert in each slot"),
]


@pytest.mark.parametrize(("edit", "said"), EDITED)
def test_an_edited_placement_is_checked_before_it_is_emitted(
    edit: dict[str, object], said: str, tmp_path: Path
) -> None:
    file = written(small(), tmp_path) / "placement.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | edit))
    for target in ("sglang", "vllm"):
        result = CliRunner().invoke(app, ["emit", str(file), "--target", target, "-o", str(tmp_path / "serve")])
        assert isinstance(result.exception, InputError)
        assert result.exception.message.startswith(f"{file}: {said}")
        assert not (tmp_path / "serve").exists()


def test_routing_of_other_layers_than_the_model_has_is_told(tmp_path: Path) -> None:
    more, fewer = (save(tmp_path / f"{count}.npy", loads(count, 8, "lognormal")) for count in (40, 4))
    model = ["--devices", "4", "--model", "mixtral-8x7b"]
    result = CliRunner().invoke(app, ["experts", str(more), *model])
    assert isinstance(result.exception, InputError)
    assert result.exception.message == f"{more}: loads: has 40 layers, and the model 32"
    result = CliRunner().invoke(app, ["experts", str(fewer), *model], catch_exceptions=False)
    assert "is of 4 of the model's layers: memory is counted" in " ".join(result.stderr.split())
    plan = ["plan", "mixtral-8x7b", "dgx-h100:8", "--global-batch", "8", "--sequence-length", "2048"]
    result = CliRunner().invoke(app, [*plan, "--routing", str(fewer)], catch_exceptions=False)
    assert "is of 4 of the model's layers: all are taken" in " ".join(result.stderr.split())


def test_more_devices_than_the_cluster_has_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "a.npy", loads(32, 8, "lognormal"))
    arguments = ["experts", str(file), "--devices", "16", "--model", "mixtral-8x7b", "--cluster", "dgx-h100:8"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert result.exception.message == "--devices: 16 are more than the 8 of dgx-h100:8"


def test_one_layer_is_not_said_to_be_several(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", [[1.0, 2.0]])
    result = CliRunner().invoke(app, ["experts", str(file), "--devices", "1"], catch_exceptions=False)
    assert "Experts of 1 layer, 2 slots on 1 device " in result.stdout


def test_a_placement_is_no_plan_and_a_plan_no_placement(tmp_path: Path) -> None:
    file = written(small(), tmp_path) / "placement.json"
    for command in (["emit", str(file), "--target", "megatron"], ["show", str(file)]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, InputError)
        assert result.exception.message == f"{file}: is a placement of experts, not a plan"
        assert "--target sglang or vllm" in str(result.exception.hint)
    plan = Path(__file__).parent / "golden" / "deepseek-v3-on-2048-h100.yaml"
    result = CliRunner().invoke(app, ["emit", str(plan), "--target", "vllm", "-o", str(tmp_path / "serve")])
    assert isinstance(result.exception, InputError)
    assert "is a plan, not a placement of experts" in result.exception.message
    assert not (tmp_path / "serve").exists()


def test_what_is_wrong_with_an_option_or_a_file_names_it(tmp_path: Path) -> None:
    file = save(tmp_path / "a.npz", {"loads": np.ones((1, 4)), "tokens": np.ones((3, 4))})
    for arguments, said in (
        (["--devices", "2", "--time-limit", "2"], "--time-limit: "),
        (["--devices", "2"], f"{file}: tokens: are from 3 devices, not 2"),
    ):
        result = CliRunner().invoke(app, ["experts", str(file), *arguments, "-o", str(tmp_path / "out")])
        assert isinstance(result.exception, InputError)
        assert result.exception.message.startswith(said)
    assert not (tmp_path / "out").exists()


def test_the_heat_map_is_drawn_as_asked_or_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / "a.npy", loads(2, 8, "lognormal"))
    arguments = ["experts", str(file), "--devices", "4", "--heat-map", "png"]
    CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "one")], catch_exceptions=False)
    assert (tmp_path / "one" / "heat_map.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("meshwright.cli.experts.find_spec", dict[str, object]().get)
    without = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "two")], catch_exceptions=False)
    assert without.exit_code == 0
    assert "matplotlib isn't installed" in without.stderr
    assert not list((tmp_path / "two").glob("heat_map*"))
