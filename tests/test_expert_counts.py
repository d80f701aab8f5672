"""Counts of replicas that devices have room for, the bound on them, and what improves placements of such counts."""

import numpy as np
import pytest
from eplb_baseline import eplb_global, largest_loads
from expert_brute_force import least_largest
from expert_instances import loads
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.planner import place_experts
from meshwright.planner.experts.annealing import annealed
from meshwright.planner.experts.checker import faults
from meshwright.planner.experts.count_program import company_bound
from meshwright.planner.experts.counts import greedy_counts
from meshwright.planner.experts.lower_bound import lower_bound
from meshwright.planner.experts.packing import packed
from meshwright.planner.experts.polish import device_loads
from meshwright.planner.experts.resplit import MOST_SQUARE, resplit
from meshwright.planner.experts.roomy import roomy_counts
from meshwright.planner.experts.two_slots import paired


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    shape=st.sampled_from([(2, 3), (3, 3), (3, 2), (2, 4), (4, 2)]),
)
def test_the_bound_on_counts_never_exceeds_the_optimum(weights: list[int], shape: tuple[int, int]) -> None:
    devices, size = shape
    best = least_largest(weights, devices=devices, size=size) if len(weights) <= devices * size else None
    if best is None:
        return
    layer = np.array(weights, float)
    bound = company_bound(layer, slots=devices * size, devices=devices, low=layer.sum() / devices, high=3 * best)
    assert bound <= best * (1 + 1e-9)


def test_the_bound_on_counts_of_three_slots_a_device_worked_out_by_hand() -> None:
    # Two of the three of 4 share a device, and there are no slots to split them: 8, where the mean is 6.
    weights = np.array([4.0, 4, 4, 1e-6, 1e-6, 1e-6])
    bound = company_bound(weights, slots=6, devices=2, low=6.0, high=8.0)
    assert 7.95 < bound <= 8.0
    # With three slots more each may be in halves, two of which weigh 4 on each of three devices.
    assert company_bound(weights, slots=9, devices=3, low=4.0, high=8.0) < 4.1


def test_replicas_above_half_of_a_device_are_as_many_as_devices_at_most() -> None:
    weights = -np.sort(-loads(20, 256, "dirichlet", spread=0.3, seed=1), axis=1)
    mean = weights.sum(axis=1) / 72
    greedy = greedy_counts(weights, slots=288, devices=72)
    roomy = roomy_counts(weights, greedy, mean, devices=72)
    assert (roomy.sum(axis=1) == 288).all()
    assert roomy.min() == 1

    def heavy(counts: np.ndarray) -> np.ndarray:
        return (counts * (weights / counts > mean[:, None] / 2)).sum(axis=1)

    assert (heavy(greedy) > 72).sum() > 5
    assert (heavy(roomy) > 72).sum() <= 1


def test_skewed_experts_come_near_the_bound() -> None:
    for seed in (0, 1):
        found = place_experts(loads(8, 256, "dirichlet", spread=0.3, seed=seed), devices=72, slots=288)
        assert found.gap.mean() <= 3e-3


def test_layers_that_no_counts_suit_get_a_better_bound() -> None:
    weights = -np.sort(-loads(58, 256, "dirichlet", spread=0.3, seed=1)[[43]], axis=1)
    known = float(lower_bound(weights, slots=288, devices=72)[0])
    bound = company_bound(weights[0], slots=288, devices=72, low=known, high=known * 1.05)
    assert bound > known * 1.01
    found = place_experts(weights, devices=72, slots=288)
    assert found.max_over_mean[0] * weights.sum() / 72 >= bound
    assert found.gap[0] <= 0.01


@pytest.mark.parametrize(("devices", "slots"), [(16, 64), (20, 60), (12, 60)])
def test_annealing_makes_no_layer_heavier_and_no_placement_wrong(devices: int, slots: int) -> None:
    weights = -np.sort(-loads(6, 48, "lognormal", spread=0.8, seed=2), axis=1)
    counts = greedy_counts(weights, slots=slots, devices=devices)
    each = weights / counts
    placed = packed(weights, counts, devices=devices)
    before = device_loads(placed, each).max(axis=1)
    again = annealed(placed, each, enough=weights.sum(axis=1) / devices, rounds=60)
    after = device_loads(again, each).max(axis=1)
    assert (after <= before).all()
    assert (after < before * 0.999).any()
    for row, now, then in zip(again, counts, placed, strict=True):
        assert faults([row.ravel().tolist()], experts=48, devices=devices, slots=slots) == ()
        assert (np.bincount(row.ravel()) == now).all()
        assert sorted(row.ravel()) == sorted(then.ravel())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), replicated=st.booleans())
def test_devices_of_many_slots_find_the_best_exchange_without_trying_all(seed: int, replicated: bool) -> None:
    draw = np.random.default_rng(seed)
    size = MOST_SQUARE + 6
    experts = 2 * size - (10 if replicated else 0)
    each = draw.lognormal(0, 1, (2, experts))
    shared = draw.permutation(experts)
    both = shared[: 2 * size - experts]
    others = shared[2 * size - experts :]
    half = size - len(both)
    placed = np.stack([[np.append(both, others[:half]), np.append(both, others[half:])]] * 2)
    before = device_loads(placed, each)
    again = resplit(placed, each, np.array([[0], [0]]), np.array([[1], [1]]))
    for row, load, start in zip(each, device_loads(again, each), before, strict=True):
        mine, theirs = row[others[:half]], row[others[half:]]
        tried = np.abs(start[0] - start[1] - 2 * (mine[:, None] - theirs))
        assert abs(load[0] - load[1]) == pytest.approx(min(tried.min(), abs(start[0] - start[1])))
    for layer in again:
        assert all(len(set(row.tolist())) == size for row in layer)


def test_counts_are_those_of_one_slot_at_a_time() -> None:
    draw = np.random.default_rng(3)
    for experts, devices, slots in ((5, 7, 21), (12, 4, 40), (30, 16, 64), (8, 3, 24)):
        weights = draw.integers(0, 9, (4, experts)).astype(float)
        weights[:, 0] += 1
        counts = np.ones((4, experts), int)
        for row, have in zip(weights, counts, strict=True):
            for _ in range(slots - experts):
                have[np.where(have < devices, row / have, -1.0).argmax()] += 1
        assert (greedy_counts(weights, slots=slots, devices=devices) == counts).all()


def test_greedy_counts_are_kept_where_others_are_heavier() -> None:
    """Layers in which counts with more room end above what the balancer of engines reaches."""
    for experts, devices, slots, seed in ((16, 24, 72, 9), (48, 24, 72, 0)):
        weights = loads(6, experts, "dirichlet", spread=5.0, seed=seed)
        found = place_experts(weights, devices=devices, slots=slots)
        theirs = eplb_global(weights, slots=slots, devices=devices)
        once = (np.diff(np.sort(theirs, axis=2), axis=2) != 0).all(axis=(1, 2))
        reached = largest_loads(weights, theirs) * devices / weights.sum(axis=1)
        assert (found.max_over_mean <= reached * (1 + 1e-9))[once].all()


def test_linear_programs_keep_the_time_limit() -> None:
    found = place_experts(loads(1, 512, "lognormal", spread=0.8), devices=512, slots=1024, time_limit_s=0.2)
    assert found.stopped
    assert found.seconds < 1.0


def test_the_pairs_that_counts_are_chosen_by_are_those_that_they_are_placed_in() -> None:
    """In order, the replicas in the middle may be of one expert, which no device may hold twice."""
    for seed in range(12):
        weights = -np.sort(-loads(1, 24, "dirichlet", spread=0.3, seed=seed)[0])
        counts = greedy_counts(weights[None], slots=64, devices=32)[0]
        found = paired(weights, counts, devices=32, bound=float(weights.sum()) / 32)
        placed = packed(weights[None], found.counts[None], devices=32)
        assert device_loads(placed, weights[None] / found.counts).max() == pytest.approx(found.largest)


def test_two_slots_of_skewed_experts_come_near_the_bound() -> None:
    found = place_experts(loads(2, 48, "dirichlet", spread=0.3), devices=96, slots=192)
    assert found.gap.max() <= 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_a_third_slot_never_hurts_where_two_are_enough(seed: int) -> None:
    weights = loads(2, 47, "dirichlet", spread=0.3, seed=seed)
    two, three = (place_experts(weights, devices=48, slots=48 * size).max_over_mean for size in (2, 3))
    assert (three <= two * (1 + 1e-9)).all()
