"""Balance with replicas: against brute force, bounds, hand-computed cases, and the balancer that engines ship."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from eplb_baseline import eplb_global, largest_loads
from expert_brute_force import least_largest
from expert_instances import chain, loads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meshwright.costmodels.layout import FloatArray
from meshwright.planner import place_experts
from meshwright.planner.experts.balance import TOLERANCE, balanced
from meshwright.planner.experts.chain import partitions
from meshwright.planner.experts.checker import faults, largest_over_mean
from meshwright.planner.experts.counts import greedy_counts
from meshwright.planner.experts.cover import Work, covered
from meshwright.planner.experts.deadline import NEVER
from meshwright.planner.experts.lightest import lightest
from meshwright.planner.experts.lower_bound import lower_bound
from meshwright.planner.experts.packing import packed
from meshwright.planner.experts.polish import device_loads
from meshwright.planner.experts.recount import recounted
from meshwright.planner.experts.two_slots import paired

tiny_layers = st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any)


@settings(deadline=None, max_examples=150)
@given(weights=tiny_layers, devices=st.integers(1, 4), spare=st.integers(0, 2))
def test_tiny_layers_are_solved_as_well_as_by_trying_all(weights: list[int], devices: int, spare: int) -> None:
    size = -(-len(weights) // devices) + spare
    assume(size <= len(weights) and size * devices <= 10)
    best = least_largest(weights, devices=devices, size=size)
    layer = np.array([weights], float)
    found = balanced(layer, slots=size * devices, devices=devices)
    assert found.largest[0] == pytest.approx(best)
    assert found.bound[0] == pytest.approx(best)
    assert lower_bound(layer, slots=size * devices, devices=devices)[0] <= best * (1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(weights=tiny_layers, devices=st.integers(1, 4))
def test_another_slot_on_each_device_never_hurts(weights: list[int], devices: int) -> None:
    fewest = -(-len(weights) // devices)
    sizes = [size for size in range(fewest, len(weights) + 2) if min(size, len(weights)) * devices <= 12]
    largest = [place_experts([weights], devices=devices, slots=size * devices).max_over_mean[0] for size in sizes]
    assert all(more <= less * (1 + 1e-9) for less, more in pairwise(largest))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), experts=st.integers(4, 40), devices=st.integers(1, 8), spare=st.integers(0, 3))
def test_permuting_experts_permutes_the_answer(seed: int, experts: int, devices: int, spare: int) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.lognormal(0, 0.6, (3, experts))
    slots = (-(-experts // devices) + spare) * devices
    order = draw.permutation(experts)
    found = place_experts(weights, devices=devices, slots=slots)
    renamed = place_experts(weights[:, order], devices=devices, slots=slots)
    back = np.where(renamed.placement == -1, -1, order[renamed.placement])
    assert (back == found.placement).all()


def test_layers_are_placed_independently_of_each_other() -> None:
    weights = loads(6, 60, "lognormal")
    together = place_experts(weights, devices=12, slots=72).placement
    alone = [place_experts(row[None], devices=12, slots=72).placement[0] for row in weights]
    assert (together == np.array(alone)).all()


@pytest.mark.parametrize(
    ("weights", "devices", "slots", "expected"),
    [
        # Two replicas of 6 make 3, 3, 2, 1 of which 4 and 5 are the best two pairs: the mean is 4.5.
        ((6.0, 2.0, 1.0), 2, 4, 5.0 / 4.5),
        # The heaviest alone is above the mean.
        ((9.0, 1.0, 1.0, 1.0), 2, 4, 10.0 / 6.0),
        ((1.0,), 1, 1, 1.0),
        ((5.0,), 4, 4, 1.0),
        ((3.0, 1.0), 4, 4, 1.0),
        # Slots for all experts on all devices: each gets the mean.
        ((7.0, 2.0, 1.0), 2, 6, 1.0),
    ],
)
def test_layers_worked_out_by_hand(weights: tuple[float, ...], devices: int, slots: int, expected: float) -> None:
    found = place_experts([weights], devices=devices, slots=slots)
    assert found.max_over_mean[0] == pytest.approx(expected)
    assert found.lower_bound[0] == pytest.approx(expected)
    assert found.status == "optimal"


def test_slots_beyond_all_experts_stay_empty() -> None:
    found = place_experts([[3.0, 1.0]], devices=2, slots=6)
    assert sorted(found.placement[0, :3]) == [-1, 0, 1]
    assert found.max_over_mean[0] == pytest.approx(1.0)


def test_greedy_counts_have_the_least_heaviest_replica() -> None:
    draw = np.random.default_rng(5)
    for _ in range(50):
        weights = draw.integers(1, 30, 4).astype(float)
        counts = greedy_counts(weights[None], slots=8, devices=4)[0]
        assert counts.sum() == 8
        best = min(
            max(weights / np.array([a, b, c, d]))
            for a in range(1, 5)
            for b in range(1, 5)
            for c in range(1, 5)
            for d in range(1, 5)
            if a + b + c + d == 8
        )
        assert (weights / counts).max() == pytest.approx(best)


def test_heaviest_first_makes_room_where_only_devices_with_the_expert_have_slots_left() -> None:
    weights = np.array([[10.0, 9.0, 8.0, 0.1, 0.1]])
    counts = np.array([[1, 1, 1, 2, 1]])
    for order in ([0, 1, 2, 3, 4], [3, 0, 1, 2, 4]):
        placed = packed(weights[:, order], counts[:, order], devices=2)[0]
        assert sorted(placed.ravel()) == sorted(np.repeat(np.arange(5), counts[0, order]))
        assert all(len(set(row)) == 3 for row in placed)


def cases() -> list[tuple[FloatArray, int, int]]:
    draw = np.random.default_rng(11)
    found = []
    for experts, devices in ((16, 4), (60, 8), (64, 12), (128, 16), (256, 32), (256, 48)):
        for kind, spread in (("lognormal", 0.6), ("zipf", 0.8), ("dirichlet", 1.0)):
            size = -(-experts // devices) + int(draw.integers(0, 2))
            weights = loads(3, experts, kind, spread=spread, seed=int(draw.integers(1000)))
            found.append((weights, devices, size * devices))
    return found


@pytest.mark.parametrize(("weights", "devices", "slots"), cases())
def test_never_worse_than_the_balancer_that_engines_ship(weights: FloatArray, devices: int, slots: int) -> None:
    """Where that balancer doesn't put an expert on a device twice, which is no placement."""
    found = place_experts(weights, devices=devices, slots=slots)
    theirs = eplb_global(weights, slots=slots, devices=devices)
    twice = (np.diff(np.sort(theirs, axis=2), axis=2) == 0).any(axis=(1, 2))
    reached = largest_loads(weights, theirs) / weights.sum(axis=1) * devices
    assert ((found.max_over_mean <= reached * (1 + 1e-9)) | twice).all()


@pytest.mark.parametrize(("slots", "devices"), [(288, 32), (288, 72), (320, 64)])
@pytest.mark.parametrize(("kind", "spread"), [("lognormal", 0.6), ("zipf", 0.8)])
def test_deepseek_v3_is_within_a_thousandth_of_the_bound(slots: int, devices: int, kind: str, spread: float) -> None:
    found = place_experts(loads(8, 256, kind, spread=spread, seed=4), devices=devices, slots=slots)
    assert found.gap.mean() <= 1e-3


@pytest.mark.parametrize(("devices", "most"), [(8, 1e-3), (16, 1e-3), (64, 0.0)])
def test_qwen3_without_replicas_is_near_the_bound(devices: int, most: float) -> None:
    found = place_experts(loads(12, 128, "lognormal", seed=9), devices=devices)
    assert found.gap.mean() <= most


def test_the_independent_checker_says_what_is_wrong() -> None:
    assert faults([[0, 1, 1, 2]], experts=3, devices=2, slots=4) == ()
    assert faults([[0, 0, 1, 2]], experts=3, devices=2, slots=4) == ("layer 0: device 0 holds an expert twice",)
    assert faults([[0, 1, 0, 1]], experts=3, devices=2, slots=4) == ("layer 0: no slot holds expert 2",)
    assert faults([[0, 1, 3, 2]], experts=3, devices=2, slots=4) == ("layer 0: there is no expert 3",)
    assert faults([[0, 1, 2]], experts=3, devices=2, slots=4) == ("layer 0 has 3 slots, not 4",)
    assert faults([[0, 1, 2]], experts=3, devices=2, slots=3) == ("3 slots aren't as many on each of 2 devices",)
    assert faults([[0, 1, 2, -1]] * 2, experts=3, devices=2, slots=4, most_on_device=3) == (
        "device 0 holds 4 experts, and its memory 3",
    )


def test_the_checker_finds_the_loads_that_are_reported() -> None:
    weights = loads(4, 24, "dirichlet", spread=1.0)
    found = place_experts(weights, devices=6, slots=36)
    for row, placed, ratio in zip(weights, found.placement, found.max_over_mean, strict=True):
        assert largest_over_mean(row.tolist(), placed.tolist(), devices=6) == pytest.approx(ratio)


def test_slots_move_to_the_experts_that_need_them() -> None:
    weights = loads(6, 16, "dirichlet", spread=1.0, seed=3)
    weights = -np.sort(-weights, axis=1)
    counts = greedy_counts(weights, slots=24, devices=8)
    placed = packed(weights, counts, devices=8)
    before = device_loads(placed, weights / counts).max(axis=1)
    bound = lower_bound(weights, slots=24, devices=8)
    again, after = recounted(weights, placed, before, bound, deadline=NEVER)
    assert (after <= before).all()
    assert (after < before * 0.99).any()
    for row, here, reached in zip(weights, again, after, strict=True):
        assert faults([here.ravel().tolist()], experts=16, devices=8, slots=24) == ()
        assert largest_over_mean(row.tolist(), here.ravel().tolist(), devices=8) == pytest.approx(
            reached * 8 / row.sum()
        )


@pytest.mark.parametrize(("devices", "size"), [(3, 2), (4, 2), (5, 2), (2, 3), (4, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_programs_are_no_better_than_trying_all(devices: int, size: int, seed: int) -> None:
    weights = np.sort(np.random.default_rng(seed).integers(1, 30, 4).astype(float))[::-1]
    slots = devices * size
    best = least_largest(weights.tolist(), devices=devices, size=size)
    counts = greedy_counts(weights[None], slots=slots, devices=devices)
    bound = float(lower_bound(weights[None], slots=slots, devices=devices)[0])
    placed = packed(weights[None], counts, devices=devices)[0]
    reached = float(device_loads(placed[None], weights[None] / counts).max())
    proven = lightest(weights, counts[0], devices=devices, size=size, known=reached, bound=bound)
    assert proven.largest <= best * (1 + 4e-4)
    assert proven.bound <= best * (1 + 1e-9)
    if size == 2:
        assert paired(weights, counts[0], devices=devices, bound=bound).bound <= best * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(6, 2, 3), (6, 3, 2), (8, 2, 4), (9, 3, 3), (8, 4, 2)]))
def test_covers_without_replicas_are_as_light_as_trying_all(seed: int, shape: tuple[int, int, int]) -> None:
    experts, devices, size = shape
    weights = np.random.default_rng(seed).integers(0, 60, experts).astype(float)
    loads_of_all = [
        max(sum(weights[list(part)]) for part in parts)
        for parts in partitions(experts, devices)
        if len(parts) == devices
    ]
    best = min(loads_of_all)
    found = lightest(
        weights, np.ones(experts, np.int64), devices=devices, size=size, known=float(weights.sum()) + 1, bound=0.0
    )
    assert found.held is not None
    assert found.largest == pytest.approx(best)
    assert best * (1 - 1e-9) <= found.bound * (1 + 1e-9) <= best * (1 + 1e-8)
    assert (found.held.sum(axis=0) == 1).all()
    assert (found.held.sum(axis=1) == size).all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), devices=st.integers(2, 4), size=st.integers(2, 3))
def test_covers_with_replicas_hold_what_was_asked(seed: int, devices: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, devices + 1, devices * size)
    counts = counts[np.cumsum(counts) <= devices * size]
    weights = draw.integers(1, 30, len(counts)).astype(float)
    each = weights / counts
    # The lightest load for these counts, by a set of devices for each expert in turn.
    best = np.inf
    for sets in product(*[list(combinations(range(devices), count)) for count in counts]):
        held = np.array([[device in chosen for chosen in sets] for device in range(devices)])
        if held.sum(axis=1).max() <= size:
            best = min(best, float((held @ each).max()))
    found = covered(weights, counts, devices=devices, size=size, most=best, work=Work(10**7))
    assert found is not None
    assert (found.sum(axis=0) == counts).all()
    assert found.sum(axis=1).max() <= size
    assert (found @ each).max() == pytest.approx(best)
    assert covered(weights, counts, devices=devices, size=size, most=best * (1 - 1e-9), work=Work(10**7)) is None


@pytest.mark.parametrize(("experts", "devices"), [(20, 5), (24, 8), (24, 6), (18, 3), (32, 8)])
def test_layers_without_replicas_are_proven(experts: int, devices: int) -> None:
    assert place_experts(loads(4, experts, "lognormal", seed=5), devices=devices).status == "optimal"


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), experts=st.integers(10, 24), devices=st.integers(2, 6))
def test_another_slot_costs_no_more_than_what_is_light_enough(seed: int, experts: int, devices: int) -> None:
    weights = np.exp(np.random.default_rng(seed).normal(0, 0.8, (2, experts)))
    fewest = -(-experts // devices)
    less, more = (place_experts(weights, devices=devices, slots=(fewest + add) * devices) for add in (0, 1))
    assert (more.max_over_mean * (1 - TOLERANCE) <= less.max_over_mean).all()


def test_layers_of_sixteen_experts_are_proven() -> None:
    found = place_experts(loads(3, 16, "lognormal"), devices=4)
    assert found.status == "optimal"


def test_two_slots_a_device_are_near_the_bound_of_their_counts() -> None:
    found = place_experts(loads(2, 256, "lognormal"), devices=144, slots=288)
    assert found.gap.max() <= 0.01


def test_a_time_limit_is_kept_and_said() -> None:
    counts, moves = chain(8, 64)
    for objective in ("both", "traffic"):
        cut = place_experts(counts, devices=32, nodes=4, objective=objective, transitions=moves, time_limit_s=1e-6)
        assert cut.stopped
        assert cut.status == "feasible"
    few = place_experts(counts, devices=4, transitions=moves, objective="traffic", time_limit_s=1e-6)
    assert few.stopped
    few = loads(2, 17, "lognormal", seed=5)
    assert place_experts(few, devices=8, time_limit_s=1e-6).stopped
    assert not place_experts(few, devices=8, time_limit_s=3600.0).stopped
    for devices, slots in ((16, 64), (32, 96), (48, 96)):
        cut = place_experts(counts, devices=devices, slots=slots, time_limit_s=1e-6)
        whole = place_experts(counts, devices=devices, slots=slots, time_limit_s=3600.0)
        assert (cut.stopped, whole.stopped) == (True, False)
        assert cut.max_over_mean.mean() > whole.max_over_mean.mean()
