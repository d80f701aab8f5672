"""Placements that are served: what engines are told, what commands refuse, and the heat map."""

import json
from pathlib import Path

import numpy as np
import pytest
from expert_files import save, small, written
from expert_instances import loads
from typer.testing import CliRunner

from meshwright.catalog.errors import InputError
from meshwright.cli.app import app
from meshwright.planner.experts.output import even_loads, in_turn
from meshwright.planner.experts.placement_file import load_placement_file
from meshwright.planner.experts.serving import ServingTarget, serving_files


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
