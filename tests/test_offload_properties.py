"""Laws of what is decided: more never slows, shares sum to one, and nothing else that fits is faster."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offload_problems import GB, MLP, small_problem

from meshwright.catalog.errors import Infeasible
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.evaluation import Evaluation, evaluated
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.optimizer_law import Shares, overlapped_s, plain_s
from meshwright.planner.offload.problem import INPUT, Problem
from meshwright.planner.offload.simulation import simulated
from meshwright.planner.offload.solve import solve
from meshwright.planner.offload.uniform import kept

QUICK = settings(max_examples=15, deadline=None)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def problems(draw: st.DrawFn, *, layers: int = 4) -> Problem:
    """Problems of which most can't keep everything, and some can't do with anything."""
    return small_problem(
        layers=layers,
        limit=draw(numbers(4, 30)) * GB,
        host_memory=draw(numbers(10, 100)) * GB,
        link=draw(numbers(5, 60)) * 1e9,
        bus=draw(numbers(50, 500)) * 1e9,
        update=draw(numbers(0.5, 10)) * 1e9,
        update_link=draw(numbers(3, 30)) * 1e9,
        held=draw(st.sampled_from([1.0, 2.0])),
        input_bytes=draw(numbers(0.01, 0.5)) * GB,
        mlp_bytes=draw(numbers(0.1, 3)) * GB,
        again_s=draw(numbers(0.001, 0.05)),
        passes=draw(st.sampled_from([1.0, 4.0])),
    )


def more_of(problem: Problem, name: str, factor: float) -> Problem:
    host, rates = problem.host, problem.host.rates
    if name == "limit":
        return replace(problem, memory=replace(problem.memory, limit=problem.memory.limit * factor))
    if name in ("memory_bytes", "copy_bytes_per_s"):
        return replace(problem, host=replace(host, **{name: getattr(host, name) * factor}))
    return replace(problem, host=replace(host, rates=replace(rates, **{name: getattr(rates, name) * factor})))


MORE = ["limit", "memory_bytes", "copy_bytes_per_s", "update_per_s", "bus_bytes_per_s", "link_bytes_per_s"]


@pytest.mark.parametrize("name", MORE)
@QUICK
@given(problem=problems(), factor=numbers(1, 3))
def test_more_bandwidth_or_memory_never_slows_the_optimum(name: str, problem: Problem, factor: float) -> None:
    less, more = relaxed(problem), relaxed(more_of(problem, name, factor))
    if less is not None:
        assert more is not None
        assert more.step_time_s <= less.step_time_s * (1 + 1e-6)


@pytest.mark.parametrize("name", MORE)
@settings(max_examples=2, deadline=None)
@given(problem=problems(layers=6), factor=numbers(1, 3))
def test_more_bandwidth_or_memory_never_slows_the_decision(name: str, problem: Problem, factor: float) -> None:
    less = solved(problem)
    if less is not None:
        more = solved(more_of(problem, name, factor))
        assert more is not None
        # Rounding leaves one percent.
        assert more.step_time_s <= less.step_time_s * 1.01


def solved(problem: Problem) -> Evaluation | None:
    try:
        return solve(problem).best
    except Infeasible:
        return None


@QUICK
@given(problem=problems())
def test_shares_sum_to_one_within_memory_and_events_agree(problem: Problem) -> None:
    best = solved(problem)
    if best is None:
        return
    shares = best.decision.shares
    parts = [float(share) for share in (shares.cpu, shares.streamed, shares.resident)]
    assert sum(parts) == pytest.approx(1)
    assert min(parts) >= 0
    assert 0 <= float(shares.nvme) <= parts[0]
    assert best.fits
    assert sum(best.breakdown_s.values()) == pytest.approx(best.step_time_s)
    events = simulated(problem, best.decision)
    assert events.device_bytes <= problem.memory.limit * (1 + 1e-9)
    assert events.host_bytes <= problem.host.memory_bytes * (1 + 1e-9)


GRID = [
    Shares(cpu=cpu / 8, streamed=streamed / 8, resident=(8 - cpu - streamed) / 8)
    for cpu in range(9)
    for streamed in range(9 - cpu)
]


def all_decisions(problem: Problem) -> list[Decision]:
    """Every choice of two layers' inputs and MLPs, all or none of each layer's parameters, shares in eighths."""
    inputs, mlps = (Choice.KEEP, Choice.OFFLOAD), tuple(Choice)
    found = []
    for first, second, one, other in product(inputs, inputs, mlps, mlps):
        choices = kept(problem)
        choices[:, INPUT], choices[:, MLP] = (first, second), (one, other)
        for streamed in product((0.0, 1.0), repeat=2):
            found += [Decision(choices=choices, streamed=np.array(streamed), shares=shares) for shares in GRID]
    return found


@settings(max_examples=3, deadline=None)
@given(problem=problems(layers=2))
def test_nothing_else_that_fits_is_faster(problem: Problem) -> None:
    tried = [evaluated(problem, decision) for decision in all_decisions(problem)]
    fitting = [one.step_time_s for one in tried if one.fits]
    optimum, best = relaxed(problem), solved(problem)
    if fitting:
        assert optimum is not None
        assert optimum.step_time_s <= min(fitting) * (1 + 1e-6)
        assert best is not None
        assert best.step_time_s <= min(fitting) * (1 + 1e-9)
    elif optimum is None:
        assert best is None


@QUICK
@given(problem=problems(), cpu=numbers(0, 1), streamed=numbers(0, 1))
def test_overlap_never_slows_the_optimizer(problem: Problem, cpu: float, streamed: float) -> None:
    """With nothing streamed; and a step is convex in its shares."""
    alone = Shares(cpu=cpu, streamed=0.0, resident=1 - cpu)
    assert float(overlapped_s(problem.optimizer, problem.host, alone)) <= float(
        plain_s(problem.optimizer, problem.host, alone)
    ) * (1 + 1e-9)
    other = Shares(cpu=0.0, streamed=streamed, resident=1 - streamed)
    middle = Shares(cpu=cpu / 2, streamed=streamed / 2, resident=1 - cpu / 2 - streamed / 2)
    ends = [float(overlapped_s(problem.optimizer, problem.host, shares)) for shares in (alone, other)]
    assert float(overlapped_s(problem.optimizer, problem.host, middle)) <= sum(ends) / 2 * (1 + 1e-9)
