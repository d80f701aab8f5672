"""Checkpoints and failures: the closed form by hand, by Young, and against simulated runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from hypothesis import given
from hypothesis import strategies as st
from resharded_plans import given_plan, small_base
from verified_plans import DENSE, MIXTURE, golden_plan

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.cli.arguments import failure_time
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner import write_plan
from meshwright.planner.goodput import Failures, goodput
from meshwright.planner.goodput.closed_form import Interval, best_interval, expected_s, goodput_of
from meshwright.planner.goodput.levels import Level, Recovery, Scheme, schemes
from meshwright.planner.goodput.machine import saving_of
from meshwright.planner.goodput.simulation import simulated
from meshwright.planner.repredict import repredict

YEAR = 365.25 * 86_400
LARGE = "llama-3.1-405b-on-16384-h100"


def storage(per_s: float, *, restart_s: float = 0.0, blocked_s: float = 0.0, late_s: float = 0.0) -> Recovery:
    return Recovery(per_s=per_s, restart_s=restart_s, blocked_s=blocked_s, late_s=late_s, least_s=late_s)


def alone(recovery: Recovery) -> Scheme:
    return Scheme(level=Level.STORAGE, lazy=recovery.late_s > 0, near=None, storage=recovery)


def test_a_piece_by_hand() -> None:
    """At a failure an hour, an hour of work takes e - 1 hours; with half an hour to restart, e^0.5 times as long."""
    hour = np.array([3600.0])
    assert expected_s(storage(1 / 3600), hour) == pytest.approx(3600 * (math.e - 1))
    assert expected_s(storage(1 / 3600, restart_s=1800), hour) == pytest.approx(3600 * (math.e - 1) * math.exp(0.5))
    assert expected_s(storage(0.0), hour) == hour


@pytest.mark.parametrize(("blocked_s", "mtbf_s"), [(5.0, 40_000.0), (60.0, 300_000.0), (1.0, 10_000.0)])
def test_rare_failures_give_youngs_interval(blocked_s: float, mtbf_s: float) -> None:
    """sqrt(2 x 5 s x 40,000 s) = 632 s; of use is 1 - sqrt(2 x 5 / 40,000), but for what comes twice."""
    found = best_interval(alone(storage(1 / mtbf_s, blocked_s=blocked_s)), 1.0)
    assert found.steps == pytest.approx(math.sqrt(2 * blocked_s * mtbf_s), rel=0.03)
    assert found.goodput == pytest.approx(1 - math.sqrt(2 * blocked_s / mtbf_s), abs=2e-3)


recoveries = st.builds(
    storage,
    st.floats(1e-5, 1e-3),
    restart_s=st.floats(0, 300),
    blocked_s=st.floats(0.1, 30),
    late_s=st.floats(0, 100),
)


@given(recoveries, st.floats(1, 20))
def test_no_other_interval_is_better(recovery: Recovery, step_s: float) -> None:
    scheme = alone(recovery)
    found = best_interval(scheme, step_s)
    every = np.arange(1, 20_000)
    values = np.where(every * step_s < recovery.least_s, 0.0, goodput_of(scheme, step_s, every, np.ones_like(every)))
    assert found.goodput >= values.max() * (1 - 1e-6)


@given(recoveries, recoveries, st.floats(1, 20))
def test_two_levels_lose_no_more_than_one(near: Recovery, far: Recovery, step_s: float) -> None:
    """Failures that near copies help after cost less than they would with copies on storage alone."""
    both = Scheme(
        level=Level.HOST,
        lazy=False,
        near=storage(near.per_s, restart_s=far.restart_s / 2, blocked_s=0.0),
        storage=storage(far.per_s, restart_s=far.restart_s, blocked_s=far.blocked_s, late_s=far.late_s),
    )
    one = alone(storage(near.per_s + far.per_s, restart_s=far.restart_s, blocked_s=far.blocked_s, late_s=far.late_s))
    assert best_interval(both, step_s).goodput >= best_interval(one, step_s).goodput * (1 - 1e-4)


SCHEMES = {
    "synchronous": alone(storage(1 / 5000, restart_s=300, blocked_s=12)),
    "lazy": alone(storage(1 / 5000, restart_s=300, blocked_s=0.5, late_s=40)),
    "one after another": alone(storage(1 / 700, restart_s=300, blocked_s=12)),
    "two levels": Scheme(
        level=Level.MEMORY,
        lazy=True,
        near=storage(1 / 6000, restart_s=200, blocked_s=1, late_s=3),
        storage=storage(1 / 60_000, restart_s=400, late_s=100),
    ),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_simulated_runs_have_the_goodput_of_the_closed_form(name: str) -> None:
    scheme = SCHEMES[name]
    interval = best_interval(scheme, 10.0)
    found = simulated(scheme, interval, 10.0, duration_s=3e6, runs=1500, seed=7)
    assert abs(found.mean - interval.goodput) < 5 * found.error + 2e-4
    assert found.low < found.mean < found.high


def test_runs_are_the_same_for_the_same_seed() -> None:
    scheme, interval = SCHEMES["lazy"], Interval(steps=10, copies=1, goodput=0.9)
    first, again, other = (simulated(scheme, interval, 10.0, duration_s=1e5, runs=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_nothing_is_lost_without_failures() -> None:
    """Of 110 seconds 100 are work, 10 a copy; a run that ends in the next piece has done that much more."""
    scheme = alone(storage(0.0, blocked_s=10))
    found = simulated(scheme, Interval(steps=10, copies=1, goodput=1.0), 10.0, duration_s=1150, runs=3, seed=0)
    assert found.mean == found.low == found.high == pytest.approx((10 * 100 + 50) / 1150)


def test_the_state_is_what_restarts_need() -> None:
    """Master weights and two moments, 12 bytes a parameter; of 64 devices each saves its part of its stage's."""
    plan = golden_plan(MIXTURE)
    saving = saving_of(plan)
    parameters = total_parameters(transformer_of(plan.inputs.model.entry))
    assert saving.total_bytes == 12 * parameters
    assert saving.device_bytes == pytest.approx(12 * parameters / 64, rel=0.01)
    assert saving_of(given_plan(small_base(stack="fsdp2"), data_parallel=4)).total_bytes == 12 * total_parameters(
        transformer_of(small_base().inputs.model.entry)
    )


def test_a_mirror_helps_unless_both_nodes_fail_at_once() -> None:
    plan = golden_plan(LARGE)
    failures = Failures(device_mtbf_s=3 * YEAR, soft_share=0.0, restart_s=600)
    saving = saving_of(plan)
    assert saving.both_lost(failures) == pytest.approx(8 * 600 / (3 * YEAR), rel=0.01)
    found = {(scheme.level, scheme.lazy): scheme for scheme in schemes(saving, failures)}
    assert len(found) == 6
    near = found[Level.MEMORY, False].near
    assert near is not None
    total = found[Level.STORAGE, False].storage.per_s
    assert total == pytest.approx(16384 / (3 * YEAR))
    assert near.per_s == pytest.approx(total * (1 - saving.both_lost(failures)))
    host = found[Level.HOST, False].near
    assert host is not None
    assert host.per_s == 0


def test_llama_3_trained_more_than_nine_tenths_of_the_time() -> None:
    """419 unexpected interruptions in 54 days on 16,384 devices, effective for over 90 % of the time (2407.21783)."""
    found = goodput(golden_plan(LARGE), Failures(device_mtbf_s=16384 * 54 * 86_400 / 419))
    assert found.mtbf_s == pytest.approx(3.1 * 3600, rel=0.01)
    worst = found.options[-1]
    assert worst.scheme.level is Level.STORAGE
    assert not worst.scheme.lazy
    assert 0.90 < worst.interval.goodput < found.best.interval.goodput < 1


def test_more_failures_slower_storage_and_longer_restarts_leave_less() -> None:
    plan = golden_plan(MIXTURE)
    usual = goodput(plan, Failures(device_mtbf_s=YEAR), storage_bytes_per_s=1e9, runs=10)
    for other in (
        goodput(plan, Failures(device_mtbf_s=YEAR / 4), storage_bytes_per_s=1e9, runs=10),
        goodput(plan, Failures(device_mtbf_s=YEAR), storage_bytes_per_s=1e8, runs=10),
        goodput(plan, Failures(device_mtbf_s=YEAR, restart_s=3600), storage_bytes_per_s=1e9, runs=10),
    ):
        assert other.best.interval.goodput < usual.best.interval.goodput


def test_one_node_has_nobody_to_mirror_to() -> None:
    found = goodput(golden_plan(DENSE), Failures(device_mtbf_s=YEAR), runs=10)
    assert {option.scheme.level for option in found.options} == {Level.HOST, Level.STORAGE}


def test_failures_that_leave_no_time_are_told() -> None:
    with pytest.raises(Infeasible, match="less than a hundredth"):
        goodput(golden_plan(LARGE), Failures(device_mtbf_s=3600.0))


@pytest.mark.parametrize(
    ("text", "seconds", "unit"),
    [("3 years/device", 3 * YEAR, "device"), ("200 d / node", 200 * 86_400, "node"), ("1 week/node", 604_800, "node")],
)
def test_failure_times(text: str, seconds: float, unit: str) -> None:
    assert failure_time(text) == (pytest.approx(seconds), unit)


@pytest.fixture
def goodput_here(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in a folder that has plans."""
    monkeypatch.chdir(tmp_path)
    write_plan(golden_plan(MIXTURE), tmp_path / "plan.yaml")
    return lambda *words: run("goodput", "plan.yaml", *words)


def test_the_command_gives_both(goodput_here: Run) -> None:
    code, out, _ = goodput_here("--mtbf", "1 year/node", "--storage", "1 GB/s", "--runs", "200", "--json")
    told = json.loads(out)
    failures = Failures(device_mtbf_s=8 * YEAR)
    found = goodput(golden_plan(MIXTURE), failures, storage_bytes_per_s=1e9, runs=200)
    assert code == 0
    assert told["goodput"] == pytest.approx(found.best.interval.goodput)
    assert told["simulated"]["low"] <= told["simulated"]["mean"] <= told["simulated"]["high"]
    assert told["options"][0]["level"] == str(found.best.scheme.level)
    assert len(told["options"]) == 6


def test_overlays_move_the_step_between_savings(goodput_here: Run, tmp_path: Path) -> None:
    slow = {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.3}}}}
    (tmp_path / "slow.json").write_text(json.dumps({"version": 1, "source": "by hand", **slow}), "utf-8")
    under = repredict(golden_plan(MIXTURE), [tmp_path / "slow.json"])
    words = ("--mtbf", "1 year/node", "--runs", "2", "--json")
    code, out, _ = goodput_here(*words, "--overlay", "slow.json")
    best = json.loads(out)["options"][0]
    assert code == 0
    assert best["interval_s"] == pytest.approx(best["steps"] * under.predicted.step_time_s, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--mtbf", "3 years"), 2, "'3 years' isn't a time by device or node"),
        (("--mtbf", "-3 years/device"), 2, "is not a number with one of its units"),
        (("--mtbf", "0 s/device"), 2, "is not from"),
        (("--mtbf", "3 years/device", "--soft-share", "1.5"), 2, "--soft-share: is 1.5"),
        (("--mtbf", "3 years/device", "--runs", "1"), 2, "--runs: is 1"),
        (("--mtbf", "3 years/device", "--seed", "-1"), 2, "--seed: is -1"),
        (("--mtbf", "3 years/device", "--storage", "1"), 2, "is not a number with one of its units"),
        (("--mtbf", "3 years/device", "--duration", "1s"), 2, "--duration: is 1 s; it is from 2 s to 10 years"),
        (("--mtbf", "1 s/device"), 4, "less than a hundredth"),
        (("--mtbf", "1 d/device", "--restart", "1ms", "--duration", "3600d"), 2, "--duration: is so long"),
    ],
)
def test_bad_input_is_told(goodput_here: Run, words: tuple[str, ...], code: int, told: str) -> None:
    found, out, err = goodput_here(*words)
    assert (found, out) == (code, "")
    assert told in err.replace("\n", " ")


def test_restarts_may_take_no_time_and_units_are_read_in_any_case(goodput_here: Run) -> None:
    words = ("--restart", "0s", "--runs", "2", "--json")
    found = [goodput_here("--mtbf", mtbf, *words) for mtbf in ("3 years/device", "3 Years/Device")]
    assert found[0] == found[1]
    assert found[0][0] == 0
    slower = goodput_here("--mtbf", "3 years/device", "--runs", "2", "--json")
    goodputs = [json.loads(out)["options"][0]["goodput"] for _, out, _ in (found[0], slower)]
    assert goodputs[0] > goodputs[1]


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(InputError, match="--soft-share"):
        Failures(device_mtbf_s=1.0, soft_share=-0.1)
