"""`meshwright reshard`: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from command_line import Run
from resharded_plans import BASES, NEW, OLD, small_plan
from verified_plans import golden_plan

from meshwright.catalog.errors import InputError
from meshwright.planner import write_plan
from meshwright.planner.resharding import reshard
from meshwright.planner.verification.resharding import replayed


@pytest.fixture
def reshard_here(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in a folder that has plans."""
    monkeypatch.chdir(tmp_path)
    write_plan(OLD, tmp_path / "old.yaml")
    write_plan(NEW, tmp_path / "new.yaml")
    write_plan(golden_plan("llama-3.1-70b-on-64-h100"), tmp_path / "other.yaml")
    return lambda *words: run("reshard", *words)


def test_the_command_writes_moves_that_replay(reshard_here: Run, tmp_path: Path) -> None:
    code, out, err = reshard_here("old.yaml", "new.yaml", "-o", "moves.json", "--json")
    assert (code, err) == (0, "")
    document = json.loads((tmp_path / "moves.json").read_text("utf-8"))
    assert replayed(document, OLD, NEW) == ()
    assert document["old"] == OLD.inputs.digest
    told = json.loads(out)
    assert told["moved_bytes"] == sum(tier["bytes"] for tier in told["tiers"]) == reshard(OLD, NEW).moved_bytes


def test_what_crosses_a_tier_takes_longer_where_an_overlay_slows_it(reshard_here: Run, tmp_path: Path) -> None:
    entry = OLD.inputs.cluster.entry
    tiers = {tier.name: {"efficiency": tier.efficiency * 1e-4} for tier in entry.tiers}
    overlay = {"version": 1, "source": "by hand", "clusters": {entry.name: {"tiers": tiers}}}
    (tmp_path / "slow.json").write_text(json.dumps(overlay), "utf-8")
    _, fast, _ = reshard_here("old.yaml", "new.yaml", "--json")
    code, slow, err = reshard_here("old.yaml", "new.yaml", "--overlay", "slow.json", "-o", "moves.json", "--json")
    assert (code, err) == (0, "")
    before, after = json.loads(fast), json.loads(slow)
    assert after["moved_bytes"] == before["moved_bytes"]
    # Small messages take their latency, which stays as it was, and hardly more.
    assert 20 * before["time_s"] < after["time_s"] < 1e4 * before["time_s"]
    assert json.loads((tmp_path / "moves.json").read_text("utf-8"))["old"] == OLD.inputs.digest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("old.yaml", "other.yaml"), "other.yaml: inputs.model: is llama-3.1-70b; the old plan is of small-mixture"),
        (("checkpoint", "checkpoint"), "both sides are a checkpoint"),
        (("old.yaml", "nowhere.yaml"), "nowhere.yaml"),
        (("old.yaml", "new.yaml", "-o", "./old.yaml"), "old.yaml: is one of the files that are read"),
        (("old.yaml", "new.yaml", "--storage", "fast"), "--storage: 'fast' is not a number with one of its units"),
        (("old.yaml", "new.yaml", "-o", "missing/moves.json"), "there is no folder"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    reshard_here: Run,
    tmp_path: Path,
    words: tuple[str, ...],
    told: str,
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    output = () if "-o" in words else ("-o", "moves.json")
    code, out, err = reshard_here(*words, *output)
    assert (code, out) == (2, "")
    assert told in err.replace("\n", " ")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_plans_that_keep_other_states_are_refused() -> None:
    with pytest.raises(InputError, match=r"inputs\.stack: .* keeps other states"):
        reshard(OLD, small_plan(BASES["fsdp"], data_parallel=2))
