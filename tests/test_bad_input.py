"""What bad input gets on the command line: one clear error with file and path, its exit code, nothing half-written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Run

from meshwright.catalog.document import MAXIMUM_BYTES

JOB = ("--global-batch", "64", "--sequence-length", "4096")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def refused(outcome: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """Hold an outcome against what every refusal must be: its code, no answer, one error that has the words."""
    found, out, err = outcome
    assert found == code, err
    assert out == ""
    assert "Traceback" not in err
    assert err.count("error:") == 1
    for word in words:
        assert word in err


def spoil_big(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


def spoil_billion_laughs(path: Path) -> None:
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    path.write_text("\n".join(lines))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "missing": (lambda _: None, "no such file"),
    "binary": (lambda path: path.write_bytes(b"\x7fELF\x00\x01\xff\xfe" * 50), "is not UTF-8 text"),
    "nulls": (lambda path: path.write_bytes(b"a: b\0c"), "binary"),
    "syntax": (lambda path: path.write_text("- id: [1, 2\n  model: }\n"), "line 2"),
    "tabs": (lambda path: path.write_text("- id: a\n\tmodel: 3\n"), "line 2"),
    "laughs": (spoil_billion_laughs, "aliases"),
    "deep": (lambda path: path.write_text("[" * 5000 + "]" * 5000), "deep"),
    "big": (spoil_big, "100 MiB"),
    "twice": (lambda path: path.write_text("- id: a\n  id: b\n"), "given twice"),
    "python": (lambda path: path.write_text("- !!python/object/apply:os.system [echo]\n"), "line 1"),
    "empty": (lambda path: path.write_text(""), ""),
    "two documents": (lambda path: path.write_text("--- a\n--- b\n"), ""),
}
READERS: dict[str, tuple[str, ...]] = {
    "estimate": ("estimate", "FILE"),
    "accuracy": ("accuracy", "FILE", "--json"),
    "show": ("show", "FILE"),
    "explain": ("explain", "FILE"),
    "check": ("check", "FILE"),
    "check --update": ("check", "FILE", "--update"),
    "model": ("plan", "FILE", "dgx-h100:8", *JOB),
    "cluster": ("plan", "llama-3.1-8b", "FILE", *JOB),
    "resized cluster": ("plan", "llama-3.1-8b", "FILE:8", *JOB, "--json"),
}


def test_the_hundred_megabytes_are_over_the_limit() -> None:
    assert MAXIMUM_BYTES < 100 * 2**20


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_every_spoiled_file(run: Run, tmp_path: Path, reader: str, kind: str) -> None:
    spoil, words = SPOILED[kind]
    file = tmp_path / "spoiled.yaml"
    spoil(file)
    before = file.read_bytes() if file.is_file() and kind != "big" else None
    refused(run(*(word.replace("FILE", str(file)) for word in READERS[reader])), "spoiled.yaml", words)
    assert before is None or file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] in ([], ["spoiled.yaml"])


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("plan", "llama-3.1-7b", "dgx-h100:8", *JOB), "llama-3.1-70b"),
        (("plan", "deepseekv33", "dgx-h100:8", *JOB), "deepseek-v3"),
        (("plan", "llama-3.1-8b", "dgx-h10:8", *JOB), "dgx-h100"),
        (("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "--stack", "megatron"), "megatron-core"),
        (("catalog", "models", "gpt3"), "gpt3-175b"),
        (("catalog", "machines"), "known: clusters, devices, models, stacks"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(run: Run, words: tuple[str, ...], nearest: str) -> None:
    refused(run(*words), nearest)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dgx-h100:8", "--global-batch", "0", "--sequence-length", "4096"), "global_batch"),
        (("dgx-h100:8", "--global-batch", "-4", "--sequence-length", "4096"), "global_batch"),
        (("dgx-h100:8", "--global-batch", "8", "--sequence-length", "0"), "sequence_length"),
        (("dgx-h100:8", "--global-batch", "8", "--sequence-length", "1" + "0" * 30), "sequence_length"),
        (("dgx-h100:8", *JOB, "--memory-headroom", "1.5"), "memory_headroom"),
        (("dgx-h100:8", *JOB, "--memory-headroom", "nan"), "memory_headroom"),
        (("dgx-h100:8", *JOB, "--top", "-1"), "top"),
        (("dgx-h100:0", *JOB), "number of devices"),
        (("dgx-h100:-8", *JOB), "number of devices"),
        (("dgx-h100:many", *JOB), "number of devices"),
        (("dgx-h100:", *JOB), "names no size"),
        (("", *JOB), ""),
    ],
)
def test_a_count_out_of_range_is_named(run: Run, words: tuple[str, ...], told: str) -> None:
    refused(run("plan", "llama-3.1-8b", *words), told)


@pytest.mark.parametrize(
    "words",
    [
        ("plan",),
        ("plan", "llama-3.1-8b", "dgx-h100:8"),
        ("plan", "llama-3.1-8b", "dgx-h100:8", "--global-batch", "some", "--sequence-length", "4096"),
        ("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "--colour", "red"),
        ("estimate",),
        ("fly",),
    ],
)
def test_a_wrong_command_line_exits_with_2(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "Usage" in err


TIER = {
    "name": "net",
    "group": None,
    "topology": "switch",
    "bandwidth": "100 GB/s",
    "latency": "3 us",
    "startup": "10 us",
    "efficiency": 0.8,
    "source": "made up",
}
CLUSTER = {
    "name": "mine",
    "device": "h100-sxm-80gb",
    "devices": 8,
    "devices_per_node": 8,
    "tiers": [TIER],
    "source": "made up",
}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"tiers": [TIER | {"bandwidth": 100}]}, "tiers.0.bandwidth"),
        ({"tiers": [TIER | {"bandwidth": "100 parsecs"}]}, "tiers.0.bandwidth"),
        ({"tiers": [TIER | {"bandwidth": "-100 GB/s"}]}, "tiers.0.bandwidth"),
        ({"tiers": [TIER | {"bandwidth": "1e-300 GB/s"}]}, "tiers.0.bandwidth"),
        ({"tiers": [TIER | {"latency": "1e300 s"}]}, "tiers.0.latency"),
        ({"tiers": [TIER | {"efficiency": 1e-320}]}, "tiers.0.efficiency"),
        ({"tiers": [TIER | {"oversubscription": 1e300}]}, "tiers.0.oversubscription"),
        ({"devices_per_node": 10**400}, "devices_per_node"),
        ({"tiers": [TIER | {"latency": "3 GB"}]}, "tiers.0.latency"),
        ({"tiers": [TIER | {"speed": "3 us"}]}, "tiers.0.speed"),
        ({"tiers": []}, "tiers"),
        ({"devices": 0}, "devices"),
        ({"devices": "8"}, "devices"),
        ({"devices_per_node": -8}, "devices_per_node"),
        ({"device": "h100"}, "h100-sxm-80gb"),
        ({"source": None}, "source"),
        ({"name": 7}, "name"),
    ],
)
def test_a_wrong_cluster_is_told_by_file_and_path(run: Run, tmp_path: Path, change: dict[str, Any], path: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER))
    assert run("plan", "llama-3.1-8b", file, *JOB)[0] == 0
    file.write_text(yaml.safe_dump(CLUSTER | change))
    refused(run("plan", "llama-3.1-8b", file, *JOB), path, *([] if "device" in change else ["cluster.yaml"]))


def test_the_slowest_network_that_is_accepted_still_gets_a_plan(run: Run, tmp_path: Path) -> None:
    slowest = TIER | {"bandwidth": "1e-12 B/s", "latency": "1e24 s", "startup": "1e24 s", "efficiency": 1e-6}
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER | {"tiers": [slowest | {"oversubscription": 1e6}]}))
    code, out, err = run("plan", "llama-3.1-8b", file, *JOB, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["predicted"]["mfu"] > 0


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": -1},
        {"hidden_size": "4096"},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**12},
        {"vocab_size": None},
        {"num_key_value_heads": 7},
        {"architectures": ["BertModel"], "model_type": "bert"},
    ],
)
def test_a_wrong_hugging_face_config_is_refused(run: Run, tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    assert run("plan", file, "dgx-h100:8", *JOB)[0] == 0
    file.write_text(json.dumps(CONFIG | change))
    refused(run("plan", file, "dgx-h100:8", *JOB), "config.json")


def test_a_wrong_case_is_told_by_file_and_path(
    run: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(), case_document(layout={"tensor_paralel": 2})]))
    refused(run("estimate", file), "cases.yaml: 1.layout.tensor_paralel: is not a known key")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cluster": {"device": "a100-smx-80gb"}}, "cluster.device: no device is called 'a100-smx-80gb'"),
        ({"layout": {"tensor_parallel": 3}}, "layout: tensor, context, pipeline and data parallelism multiply to 24"),
        ({"layout": {"virtual_pipeline": 99}}, "layout.virtual_pipeline: 8 layers can't be cut into 198 chunks"),
        ({"model": {"hidden": 10**9}}, "model.hidden: Input should be less than or equal to 10000000"),
        ({"model": {"vocab": 10**9}}, "model.vocab: Input should be less than or equal to 10000000"),
        (
            {"model": {"moe": {"experts": 8, "top_k": 2, "expert_ffn_hidden": 10**9}}},
            "model.moe.ffn_hidden: Input should be less than or equal to 10000000",
        ),
        (
            {"layout": {"schedule": "dualpipe"}, "batch": {"global_batch": 24}},
            "layout.schedule: DualPipe needs two micro-batches a stage, an even number of them; a replica has 3 "
            "micro-batches for 2 stages",
        ),
        ({"batch": {"global_batch": 1}}, "batch.global_batch: a batch of 1 isn't shared evenly"),
    ],
)
def test_a_case_without_a_prediction_is_told_by_file_id_and_path(
    run: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]], change: dict[str, Any], told: str
) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(**change)]))
    code, out, err = run("estimate", file)
    assert code == 2
    assert err.startswith(f"error: {file}: case toy: {told}")
    assert "Not predicted" in out


def test_a_case_that_lacks_a_number_keeps_its_exit_code(
    run: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump([case_document(precision="fp8")]))
    code, _, err = run("estimate", file)
    assert code == 3
    assert err.startswith(f"error: {file}: case toy: the catalog has no fp8 peak")
    assert "\nhint: " in err


def test_what_a_case_says_is_shown_without_what_a_terminal_acts_on(
    run: Run, tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(
        yaml.safe_dump([case_document(layout={"recompute": "selective", "recompute_detail": "\x1b[2Jmlp"})])
    )
    code, out, _ = run("estimate", file)
    assert code == 0
    assert "\\x1b[2Jmlp is taken to be what" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("command", ["show", "explain", "check", "estimate", "accuracy"])
def test_an_empty_name_of_a_file_is_told(run: Run, command: str) -> None:
    refused(run(command, ""), "the name of the file is empty")
    refused(run("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "-o", ""), "the name of the file is empty")


@pytest.mark.parametrize("command", ["show", "explain", "check", "estimate", "accuracy"])
def test_an_unreadable_file_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("version: 1")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "read_bytes", denied)
    outcome = run(command, file)
    refused(outcome)
    assert outcome[2] == f"error: {file}: can't be read: Permission denied\n"


def test_a_link_to_itself_is_not_written_over(run: Run, tmp_path: Path) -> None:
    loop, other = tmp_path / "loop.yaml", tmp_path / "other.yaml"
    loop.symlink_to(other)
    other.symlink_to(loop)
    refused(run("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "-o", loop), f"{loop}: is a link that leads back to itself")
    assert loop.is_symlink()
    assert other.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_number_of_the_catalog_is_told(run: Run) -> None:
    refused(run("plan", "llama-3.1-8b", "selene:8", *JOB, "--precision", "fp8"), "no fp8 peak", code=3)


def test_a_job_that_fits_nowhere_tells_why(run: Run) -> None:
    outcome = run("plan", "megatron-1t", "pcie-box", "--global-batch", "8", "--sequence-length", "2048", "--json")
    refused(outcome, "nearest miss", "needs more memory than the device", code=4)
    assert re.search(r"^ *[\d,]+ {2}it needs more memory", outcome[2], re.MULTILINE)


@pytest.mark.parametrize("where", ["folder", "missing/plan.yaml", "plan.yaml/plan.yaml"])
def test_a_plan_that_cannot_be_written_leaves_nothing(run: Run, tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plan.yaml").write_text("kept")
    refused(run("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "-o", tmp_path / where))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "plan.yaml"]
    assert (tmp_path / "plan.yaml").read_text() == "kept"


def test_a_failed_search_leaves_the_old_plan(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("kept")
    refused(run("plan", "llama-3.1-405b", "dgx-h100:8", *JOB, "-o", file), code=4)
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": 99}, "version"),
        ({"version": "one"}, "version"),
        ({"layout": None}, "layout"),
        ({"colour": "red"}, "colour"),
        ({"mesh": {"devices": -8}}, "mesh"),
        ({"inputs": {}}, "inputs"),
    ],
)
def test_a_spoiled_plan_is_told_by_path(run: Run, tmp_path: Path, change: dict[str, Any], path: str) -> None:
    file = tmp_path / "plan.yaml"
    assert run("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "-o", file)[0] == 0
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    for command in ("show", "explain", "check"):
        refused(run(command, file), f"plan.yaml: {path}")
