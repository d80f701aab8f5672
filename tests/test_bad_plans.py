"""Plan files of a newer version, cut short, edited into nonsense or for other devices: refused by all commands.

Every refusal is one error with the file and the field, and exit code 2; nothing is written, and what was there stays.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Run
from emitted_plans import plan_named
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshwright.catalog.errors import InputError
from meshwright.planner import Plan, emit, load_plan
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.plan_file import plan_yaml

Document = dict[str, Any]
PLAN = "moe"  # on every axis but context: 2 tensor x 4 pipeline x 8 data ranks, 8 experts
TEXT = plan_yaml(plan_named(PLAN))
ORIGINAL: Document = yaml.safe_load(TEXT)
COMMANDS: dict[str, tuple[str, ...]] = {
    "emit": ("emit", "FILE", "--target", "megatron", "-o", "OUT"),
    "emit --relax": ("emit", "FILE", "--target", "nanotron", "--relax", "-o", "OUT"),
    "emit --force": ("emit", "FILE", "--target", "torch", "--force", "-o", "THERE"),
    "verify": ("verify", "FILE"),
    "show": ("show", "FILE"),
    "explain": ("explain", "FILE"),
}


def set_deep(document: Document, path: str, value: object) -> None:
    *parents, last = path.split(".")
    inner: Any = document
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[int(last) if isinstance(inner, list) else last] = value


def words_of(command: str, tmp_path: Path) -> list[str]:
    places = {"FILE": tmp_path / "plan.yaml", "OUT": tmp_path / "out", "THERE": tmp_path / "there"}
    return [str(places.get(word, word)) for word in COMMANDS[command]]


def refused(run: Run, command: str, tmp_path: Path, *said: str) -> None:
    """Run a command on tmp_path/plan.yaml, and hold it against what every refusal must be."""
    there = tmp_path / "there"
    there.mkdir(exist_ok=True)
    (there / "mine").write_text("mine")
    before = sorted(tmp_path.iterdir())
    code, _, err = run(*words_of(command, tmp_path))
    assert code == 2, err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    flat = " ".join(err.split())
    for words in said:
        assert words in flat, flat
    assert sorted(tmp_path.iterdir()) == before
    assert [path.name for path in there.iterdir()] == ["mine"]


# By what is wrong: the field that is edited, its new value, and the field that the error names.
NONSENSE: dict[str, tuple[str, object, str]] = {
    "a newer version": ("version", 2, "version"),
    "a negative degree": ("layout.tensor_parallel", -2, "layout.tensor_parallel"),
    "a negative count": ("search.candidates", -1, "search.candidates"),
    "a count of nothing": ("layout.data_parallel", 0, "layout.data_parallel"),
    "a degree in words": ("layout.pipeline_parallel", "four", "layout.pipeline_parallel"),
    "degrees that don't multiply": ("layout.tensor_parallel", 4, "layout"),
    "groups that overlap": ("mesh.groups.tensor", {"size": 4, "stride": 1}, "mesh.groups"),
    "groups that skip ranks": ("mesh.groups.data", {"size": 8, "stride": 3}, "mesh.groups"),
    "a group that is lost": ("mesh.groups", {}, "mesh.groups"),
    "layers that are lost": ("stages.1.chunks", [[8, 14]], "stages"),
    "layers held twice": ("stages.1.chunks", [[7, 15]], "stages"),
    "a layer beyond the last": ("stages.3.chunks", [[24, 32]], "stages"),
    "a stage that is lost": ("stages", ORIGINAL["stages"][:-1], "stages"),
    "a split of other layers": ("layout.split", [8, 8, 8, 9], "layout.split"),
    "no stages": ("stages", [], "stages"),
    "experts that can't be shared": ("layout.expert_parallel", 7, "layout.expert_parallel"),
    "shards that can't be": ("layout.zero_shard", 5, "layout.zero_shard"),
    "a micro-batch that doesn't divide": ("layout.micro_batch", 7, "layout.micro_batch"),
    "an unknown schedule": ("layout.schedule", "2f2b", "layout.schedule"),
    "an unknown field": ("layout.warp_parallel", 2, "layout.warp_parallel"),
    "inputs edited by hand": ("inputs.model.entry.layers", 31, "inputs.digest"),
    "another device count": ("mesh.devices", 128, "layout"),
    "a time that isn't its parts": ("predicted.step_time_s", 1.0, "predicted.step_time_s"),
    "a time that isn't a number": ("predicted.step_time_s", float("nan"), "predicted.step_time_s"),
}
# All but `verify`, which finds by itself what is wrong and may name another field.
STRICT = [command for command in COMMANDS if command != "verify"]


@pytest.mark.parametrize("command", STRICT)
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_with_its_field(run: Run, command: str, what: str, tmp_path: Path) -> None:
    path, value, field = NONSENSE[what]
    document = deepcopy(ORIGINAL)
    set_deep(document, path, value)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(document))
    refused(run, command, tmp_path, f"plan.yaml: {field}")


@pytest.mark.parametrize("what", NONSENSE)
def test_verification_refuses_nonsense_too(run: Run, what: str, tmp_path: Path) -> None:
    path, value, _ = NONSENSE[what]
    document = deepcopy(ORIGINAL)
    set_deep(document, path, value)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(document))
    refused(run, "verify", tmp_path, "plan.yaml: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_version_says_what_to_do(run: Run, command: str, tmp_path: Path) -> None:
    document = {**ORIGINAL, "version": 2, "axes": {"new": True}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(document))
    refused(run, command, tmp_path, "plan.yaml: version: was made by a newer meshwright", "hint: upgrade meshwright")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("eighths", range(8))
def test_a_file_cut_short_is_refused(run: Run, command: str, eighths: int, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(TEXT[: eighths * len(TEXT) // 8])
    refused(run, command, tmp_path, "plan.yaml")


@given(length=st.integers(0, len(TEXT) - 2))
@example(length=len(TEXT) - 2)
@settings(max_examples=60, deadline=None)
def test_cut_anywhere_a_plan_is_never_taken_for_another(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("cut") / "plan.yaml"
    file.write_text(TEXT[:length])
    with pytest.raises(InputError) as refusal:
        load_plan(file)
    assert refusal.value.file == str(file)


def leaves(value: object, path: str = "") -> Iterator[str]:
    """Give the path of each value of a document that holds no others."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for key, part in inner for leaf in leaves(part, f"{path}.{key}".removeprefix("."))]
    yield from found or [path]


LEAVES = tuple(leaves(ORIGINAL))
# The sections that say what is run.
WHAT_IS_RUN = ("layout", "stages", "mesh", "inputs")
FREE = ("inputs.", "meshwright", "search.rejected", "predicted.wider_because")


@given(
    path=st.sampled_from([leaf for leaf in LEAVES if not leaf.startswith(FREE)]),
    value=st.sampled_from([-1, 0, 10**30, 2.5, "", "eight", None, True, [], {}, [[0]], float("inf")]),
)
@settings(max_examples=300, deadline=None)
def test_any_edited_value_is_refused_with_its_field_or_read_as_it_is(
    path: str, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    document = deepcopy(ORIGINAL)
    set_deep(document, path, value)
    file = tmp_path_factory.mktemp("edited") / "plan.yaml"
    file.write_text(yaml.safe_dump(document))
    found = read(file)
    if isinstance(found, InputError):
        assert found.file == str(file)
        assert found.path
    else:
        told = found.model_dump(mode="json")
        assert {name: told[name] for name in WHAT_IS_RUN} == {name: document[name] for name in WHAT_IS_RUN}


def read(file: Path) -> Plan | InputError:
    try:
        return load_plan(file)
    except InputError as refusal:
        return refusal


@pytest.mark.parametrize("devices", ["32", "128", "0", "-8"])
def test_a_plan_for_other_devices_is_refused(run: Run, devices: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(TEXT)
    folder = tmp_path / "out"
    for words in (["emit", "--target", "megatron", "-o", str(folder)], ["verify"]):
        code, _, err = run(words[0], tmp_path / "plan.yaml", *words[1:], "--devices", devices)
        assert code == 2, err
        assert "devices" in err
        assert not folder.exists()
    assert run("emit", tmp_path / "plan.yaml", "--target", "megatron", "-o", folder, "--devices", "64")[0] == 0


@pytest.mark.parametrize("target", EMITTERS)
def test_a_folder_that_is_there_stays_as_it_is(run: Run, target: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(plan_yaml(plan_named("single-device")))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    words = ("emit", tmp_path / "plan.yaml", "--target", target, "-o", folder)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "--force replaces the whole folder" in err
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("mine", "mine")]
    assert run(*words, "--force")[0] == 0
    assert {path.name for path in folder.iterdir()} == set(emit(plan_named("single-device"), target).files)


@pytest.mark.parametrize("target", EMITTERS)
def test_an_emission_that_fails_half_way_leaves_nothing(
    run: Run, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.yaml").write_text(plan_yaml(plan_named("single-device")))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    write, written = Path.write_bytes, list[Path]()

    def full_after_one(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_after_one)
    for folder in ("out", "there"):
        written.clear()
        code, _, err = run("emit", tmp_path / "plan.yaml", "--target", target, "-o", tmp_path / folder, "--force")
        assert code == 2
        assert "No space left on device" in err
        assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.yaml", "there"]
    assert [path.read_text() for path in (tmp_path / "there").iterdir()] == ["mine"]


def test_a_refused_plan_makes_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(TEXT)
    code, _, err = run("emit", tmp_path / "plan.yaml", "--target", "accelerate", "-o", tmp_path / "out")
    assert code == 2
    assert "layout.pipeline_parallel: Accelerate has no pipelines" in " ".join(err.split())
    code, _, err = run("emit", tmp_path / "plan.yaml", "--target", "accelerate", "--relax", "-o", tmp_path / "out")
    assert code in (0, 4), err
    if code:
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "nanotron"), "nanotron"),
        (("--target", "megatrom"), "megatrom"),
        (("--target", "megatron", "--cluster", "dgx-h1000:64"), "dgx-h1000"),
        (("--target", "megatron", "--cluster", "dgx-h100:0"), "not a number of devices"),
        (("--target", "megatron", "--cluster", "dgx-h100:12"), "arguments.sh"),
        (("--target", "megatron", "--global-batch", "-4"), "global"),
        (("--target", "megatron", "--model", "llama-3.1-8b"), "the file says"),
    ],
)
def test_an_import_that_makes_no_plan_writes_none(run: Run, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    file = tmp_path / "arguments.sh"
    file.write_text(emit(plan_named(PLAN), "megatron").files["arguments.sh"])
    cluster = () if "--cluster" in words else ("--cluster", "dgx-h100:64")
    plan = tmp_path / "plan.yaml"
    code, out, err = run("import", file, *words, *cluster, "-o", plan, "--no-improve")
    assert (code, out) == (2, ""), err
    assert said in err
    assert not plan.exists()


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x00\xff\xfe", b"hello", b"--", b"'", b"ARGS=(", b"\xef\xbb\xbf{"])
@pytest.mark.parametrize("target", ["megatron", "torchtitan", "deepspeed", "accelerate"])
def test_an_import_of_what_is_no_configuration(run: Run, target: str, content: bytes, tmp_path: Path) -> None:
    file, plan = tmp_path / "configuration", tmp_path / "plan.yaml"
    file.write_bytes(content)
    words = ("--cluster", "dgx-h100:8", "--model", "llama-3.1-8b", "--global-batch", "64", "--sequence-length", "8192")
    code, out, err = run("import", file, "--target", target, *words, "-o", plan, "--no-improve")
    assert (code, out) == (2, ""), err
    assert err.count("error:") == 1
    assert "configuration" in err
    assert not plan.exists()
