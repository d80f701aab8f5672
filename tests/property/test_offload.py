"""Laws of offload splits: shares, bounds, more of anything never slows, and brute force over small cases."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offload_problems import GB, MLP, small_problem

from meshwright.catalog.errors import Infeasible
from meshwright.planner.offload.baselines import baselines
from meshwright.planner.offload.best_shares import with_best_shares
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.evaluation import evaluated
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.problem import INPUT, Problem
from meshwright.planner.offload.simulation import simulated
from meshwright.planner.offload.solve import solve
from meshwright.planner.offload.uniform import ON_DEVICE, kept

PROBLEMS = st.fixed_dictionaries(
    {
        "layers": st.integers(2, 8),
        "limit": st.floats(4, 40).map(lambda size: size * GB),
        "host_memory": st.floats(10, 60).map(lambda size: size * GB),
        "link": st.floats(4e9, 60e9),
        "bus": st.floats(50e9, 600e9),
        "update": st.floats(5e8, 1e10),
        "update_link": st.floats(4e9, 50e9),
        "parameters": st.floats(2e8, 2e9),
        "held": st.integers(1, 3).map(float),
        "again_s": st.floats(0.0, 0.03),
        "ranks": st.integers(1, 8),
        "passes": st.integers(1, 3).map(float),
    }
)


@given(PROBLEMS)
@settings(max_examples=10, deadline=None)
def test_decisions_hold_what_they_promise(numbers: dict[str, float]) -> None:
    problem = small_problem(**numbers)  # type: ignore[arg-type]
    try:
        found = solve(problem)
    except Infeasible:
        return
    best, shares = found.best, found.best.decision.shares
    assert float(shares.cpu) + float(shares.streamed) + float(shares.resident) == pytest.approx(1)
    assert best.fits
    assert best.step_time_s >= found.lower_bound_s * (1 - 1e-6)
    events = simulated(problem, best.decision)
    assert events.step_time_s == pytest.approx(best.step_time_s, rel=0.03)
    assert events.device_bytes <= problem.memory.limit * (1 + 1e-6)
    assert events.host_bytes <= problem.host.memory_bytes * (1 + 1e-6)
    for baseline in baselines(problem).values():
        assert baseline is None or best.step_time_s <= baseline.step_time_s * (1 + 1e-6)


@given(PROBLEMS, st.sampled_from(["limit", "host_memory", "link", "bus", "update", "update_link"]), st.floats(1, 4))
@settings(max_examples=15, deadline=None)
def test_more_of_anything_never_slows(numbers: dict[str, float], name: str, factor: float) -> None:
    less = relaxed(small_problem(**numbers))  # type: ignore[arg-type]
    more = relaxed(small_problem(**numbers | {name: numbers[name] * factor}))  # type: ignore[arg-type]
    if less is not None:
        assert more is not None
        assert more.step_time_s <= less.step_time_s * (1 + 1e-6)


def brute_force(problem: Problem) -> float:
    """The fastest of all choices, layers that stream and shares of whole subgroups."""
    layers = len(problem.layers)
    best = float("inf")
    for inputs, mlps, streams in product(
        product((Choice.KEEP, Choice.OFFLOAD), repeat=layers),
        product(Choice, repeat=layers),
        product((False, True), repeat=layers),
    ):
        choices = kept(problem)
        choices[:, INPUT], choices[:, MLP] = inputs, mlps
        tried = with_best_shares(
            problem, Decision(choices=choices, streamed=np.array(streams, dtype=float), shares=ON_DEVICE)
        )
        if tried is not None:
            best = min(best, evaluated(problem, tried).step_time_s)
    return best


@pytest.mark.parametrize(
    "numbers",
    [
        {"limit": 30 * GB},
        {"limit": 12 * GB},
        {"limit": 9 * GB, "held": 2.0},
        {"limit": 7.5 * GB, "link": 8e9},
        {"limit": 6.5 * GB, "bus": 60e9},
        {"limit": 12 * GB, "again_s": 0.001},
        {"limit": 14 * GB, "host_memory": 13 * GB},
        {"limit": 9 * GB, "ranks": 8},
    ],
)
def test_brute_force_agrees(numbers: dict[str, float]) -> None:
    problem = small_problem(layers=2, **numbers)  # type: ignore[arg-type]
    least = brute_force(problem)
    optimum = relaxed(problem)
    assert optimum is not None
    assert optimum.step_time_s <= least * (1 + 1e-6)
    assert solve(problem).best.step_time_s <= least * 1.005


def test_brute_force_and_the_program_agree_that_nothing_fits() -> None:
    problem = small_problem(layers=2, limit=2 * GB)
    assert brute_force(problem) == float("inf")
    assert relaxed(problem) is None
    with pytest.raises(Infeasible, match=r"nothing fits in 1\.9 GiB"):
        solve(problem)
