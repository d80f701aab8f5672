"""Splits of a step's sequences: by hand, against every split of a few, and laws."""

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sequence_brute_force import shortest_free_step_s, shortest_step_s
from sequence_oracle import least_free_step_s, least_step_s

from meshwright.catalog.errors import Infeasible, InputError, SolverFailed
from meshwright.costmodels.layout import Layout
from meshwright.planner import SequenceScatterer, scatter_sequences
from meshwright.planner.sequences import GroupCosts, Mode, Scattered, uniform_costs
from meshwright.planner.sequences.batch import batch_of
from meshwright.planner.sequences.certificate import certified_bound_s
from meshwright.planner.sequences.checker import faults, require_sound
from meshwright.planner.sequences.packing import packed, packed_part
from meshwright.planner.sequences.quick_bound import lockstep_bound_s, quick_bound_s

LENGTHS = [900, 500, 500, 300, 200, 100, 100, 100, 40, 8]


def costs_of(ranks: int = 8, tokens_a_rank: int = 600, **more: Any) -> GroupCosts:  # noqa: ANN401 - coefficients
    return uniform_costs(
        ranks=ranks,
        node_ranks=4,
        tokens_a_rank=tokens_a_rank,
        **{"square_s": 1e-6, "token_s": 1e-3, "fixed_s": 0.02, "inside_s": 1e-4, "outside_s": 4e-4} | more,
    )


def solved(lengths: list[int], mode: Mode | None = None, **more: Any) -> Scattered:  # noqa: ANN401 - coefficients
    return SequenceScatterer(costs=costs_of(**more), mode=mode)(lengths)


def groups_of(found: Scattered, lengths: list[int]) -> list[tuple[int, int, int, tuple[int, ...]]]:
    return [
        (turn, group.first_rank, group.degree, tuple(sorted(lengths[at] for at in group.sequences)))
        for turn, groups in enumerate(found.micro_batches)
        for group in groups
    ]


def test_one_sequence_by_hand() -> None:
    # On 4 ranks (0.81 + 0.9 + 0.09) / 4 + 0.02 s, on 8 across nodes (0.81 + 0.9 + 0.36) / 8 + 0.02 s.
    found = solved([900])
    assert found.step_time_s == pytest.approx((0.81 + 0.9 + 0.36) / 8 + 0.02)
    assert found.lower_bound_s == pytest.approx(found.step_time_s)
    assert found.micro_batches[0][0].degree == 8
    assert solved([900], ranks=4).step_time_s == pytest.approx((0.81 + 0.9 + 0.09) / 4 + 0.02)


def test_long_beside_short_beats_one_size() -> None:
    # The long sequence takes four ranks (4 + 2 + 0.2) / 4 s; twelve short ones fill the other four, three each.
    found = solved([2000, *[400] * 12], ranks=8, tokens_a_rank=2000, outside_s=1e-2)
    assert sorted(group.degree for group in found.micro_batches[0]) == [1, 1, 1, 1, 4]
    assert found.step_time_s == pytest.approx(3 * (0.16 + 0.4) + 0.02)
    assert found.step_time_s < found.homogeneous_step_time_s


def test_free_ranks_do_not_wait() -> None:
    # In lockstep two micro-batches, as memory asks for, each as long as its longest; freely a rank's times add up.
    lengths = [500, 500, 300, 300]
    by_mode = {mode: solved(lengths, mode, ranks=2, tokens_a_rank=500) for mode in Mode}
    assert by_mode[Mode.FREE].step_time_s <= by_mode[Mode.LOCKSTEP].step_time_s
    assert by_mode[Mode.LOCKSTEP].step_time_s == pytest.approx(0.75 + 0.39 + 2 * 0.02)


@pytest.mark.parametrize("seed", range(25))
def test_bounds_and_answers_enclose_the_shortest_step(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ranks = int(draw.choice([2, 4]))
    lengths = np.exp(draw.uniform(2, 7, draw.integers(2, 7))).astype(int).tolist()
    costs = costs_of(ranks, int(draw.choice([600, 2000])), fixed_s=float(draw.choice([0.0, 0.05])))
    shortest = shortest_step_s(costs, lengths)
    found = SequenceScatterer(costs=costs, mode=Mode.LOCKSTEP, certify=True)(lengths)
    assert found.lower_bound_s <= shortest * (1 + 1e-9)
    assert shortest * (1 - 1e-9) <= found.step_time_s <= 1.35 * shortest
    free = SequenceScatterer(costs=costs, certify=True)(lengths)
    assert free.lower_bound_s <= min(free.step_time_s, shortest) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_bounds_and_answers_enclose_the_shortest_step_without_barriers(seed: int) -> None:
    """Fixed parts of up to a third of a step, long sequences beside short ones, and costs that grow with the degree."""
    draw = np.random.default_rng(seed)
    ranks, most = [(2, 6), (4, 5)][seed % 2]
    lengths = np.exp(draw.uniform(2, 7, draw.integers(2, most + 1))).astype(int).tolist()
    costs = costs_of(
        ranks,
        int(draw.choice([600, 2000])),
        fixed_s=float(draw.choice([0.02, 0.1, 0.3])),
        inside_s=float(draw.choice([1e-4, 1e-3])),
    )
    shortest_s = shortest_free_step_s(costs, lengths)
    found = SequenceScatterer(costs=costs, mode=Mode.FREE, certify=True)(lengths)
    assert found.lower_bound_s <= shortest_s * (1 + 1e-9)
    assert shortest_s * (1 - 1e-9) <= found.step_time_s <= 1.35 * shortest_s


@pytest.mark.parametrize("seed", range(4))
def test_bounds_and_answers_enclose_what_integer_programs_find(seed: int) -> None:
    """Seven sequences on eight ranks, more than every split can be tried of."""
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.uniform(3, 7.3, 7)).astype(int).tolist()
    costs = costs_of(8, int(draw.choice([500, 2000])), fixed_s=float(draw.choice([0.02, 0.1])))
    found = SequenceScatterer(costs=costs, mode=Mode.LOCKSTEP, certify=True)(lengths)
    least_s = min(least_step_s(costs, lengths, micro_batches) for micro_batches in (1, 2))
    assert found.lower_bound_s <= least_s * (1 + 1e-6)
    assert least_s * (1 - 1e-6) <= found.step_time_s <= 1.15 * least_s
    free = SequenceScatterer(costs=costs, mode=Mode.FREE, certify=True)(lengths)
    least_s = least_free_step_s(costs, lengths, 2)
    assert free.lower_bound_s <= least_s * (1 + 1e-6)
    assert free.step_time_s <= 1.15 * least_s


@pytest.mark.parametrize("seed", range(6))
def test_integer_programs_find_what_every_split_does(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.uniform(3, 7, 5)).astype(int).tolist()
    costs = costs_of(4, 600)
    assert min(least_step_s(costs, lengths, count) for count in (1, 2, 3)) == pytest.approx(
        shortest_step_s(costs, lengths)
    )
    assert least_free_step_s(costs, lengths, 2) == pytest.approx(shortest_free_step_s(costs, lengths))


@pytest.mark.parametrize("seed", range(30))
def test_bounds_hold_where_larger_groups_have_larger_fixed_parts(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.uniform(2, 7, draw.integers(2, 6))).astype(int).tolist()
    costs = costs_of(4, int(draw.choice([400, 2000])), fixed_s=float(draw.choice([0.0, 0.1])))
    pieces = costs.pieces.copy()
    pieces[:, 0, 2] += np.array([0.0, *np.sort(draw.uniform(0, 0.3, 2))])
    costs = replace(costs, pieces=pieces)
    batch = batch_of(costs, np.sort(lengths)[::-1])
    least_s, least_free_s = shortest_step_s(costs, lengths), shortest_free_step_s(costs, lengths)
    certified_s = certified_bound_s(costs, batch, least_s, free=False)
    assert quick_bound_s(costs, batch) <= certified_s * (1 + 1e-9) <= least_s * (1 + 2e-9)
    certified_s = certified_bound_s(costs, batch, least_free_s, free=True)
    assert quick_bound_s(costs, batch) <= certified_s * (1 + 1e-9) <= least_free_s * (1 + 2e-9)
    assert lockstep_bound_s(costs, batch) <= least_s * (1 + 1e-9)


def test_the_area_bound_counts_a_long_sequence_s_own_group() -> None:
    # Memory asks for all four ranks: load (1.44 + 1.2) / 4 s and the fixed part of four, 0.3; the short ones, 0.05
    # each, 0.0525 on one rank: 0.66 + (0.3 - 0.02) + (4 x 0.0525) / 4 + 0.02, the least fixed part, of all ranks.
    costs = costs_of(4, 350, inside_s=0.0, outside_s=0.0)
    pieces = costs.pieces.copy()
    pieces[:, 0, 2] = [0.02, 0.02, 0.3]
    costs = replace(costs, pieces=pieces)
    batch = batch_of(costs, [1200, 50, 50, 50, 50])
    assert quick_bound_s(costs, batch) == pytest.approx(0.66 + 0.28 + 0.0525 + 0.02, rel=1e-5)


def test_most_small_batches_are_solved_to_the_optimum() -> None:
    excess = []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        lengths = np.exp(draw.uniform(2, 7, 6)).astype(int).tolist()
        costs = costs_of(4)
        found = SequenceScatterer(costs=costs, mode=Mode.LOCKSTEP)(lengths)
        excess.append(found.step_time_s / shortest_step_s(costs, lengths) - 1)
    assert np.median(excess) <= 0.01


batches = st.lists(st.integers(1, 2400), min_size=1, max_size=40)
modes = st.sampled_from(Mode)


@settings(max_examples=60, deadline=None)
@given(lengths=batches, mode=modes)
def test_laws_of_an_answer(lengths: list[int], mode: Mode) -> None:
    found = solved(lengths, mode)
    held = Counter(int(at) for groups in found.micro_batches for group in groups for at in group.sequences)
    assert held == Counter(range(len(lengths)))
    assert found.lower_bound_s <= found.step_time_s * (1 + 1e-9)
    assert found.step_time_s <= found.homogeneous_step_time_s
    for groups in found.micro_batches:
        ranks = [int(rank) for group in groups for rank in group.ranks]
        assert len(ranks) == len(set(ranks))
        assert all(group.tokens <= 600 * group.degree for group in groups)
        assert all(group.tokens == sum(lengths[at] for at in group.sequences) for group in groups)


@settings(max_examples=80, deadline=None)
@given(lengths=batches, mode=modes, ranks=st.sampled_from([3, 5, 6, 7, 12, 20, 24]), full=st.booleans())
def test_ranks_need_not_be_a_multiple_of_degrees(lengths: list[int], mode: Mode, ranks: int, full: bool) -> None:
    full = full and len(lengths) >= ranks
    # A single rank has room for 600 tokens, so that any sequence can be the one that a rank lacks.
    longest = 600 if full else 600 * 2 ** (ranks.bit_length() - 1)
    shortened = [min(length, longest) for length in lengths]
    found = SequenceScatterer(costs=costs_of(ranks), mode=mode, no_empty_rank=full)(shortened)
    assert found.lower_bound_s <= found.step_time_s * (1 + 1e-9)
    assert found.step_time_s <= found.homogeneous_step_time_s


def test_a_rank_left_by_wide_groups_gets_a_sequence() -> None:
    free, full = (SequenceScatterer(costs=costs_of(3), no_empty_rank=full)([72, 23, 5]) for full in (False, True))
    assert full.step_time_s == free.step_time_s


@settings(max_examples=40, deadline=None)
@given(lengths=batches, mode=modes)
def test_twice_the_devices_never_slow(lengths: list[int], mode: Mode) -> None:
    few, many = (solved(lengths, mode, ranks=ranks).step_time_s for ranks in (4, 8))
    assert many <= few * (1 + 1e-9)


def seconds_of(costs: GroupCosts, lengths: list[int], mode: Mode, *, full: bool) -> float:
    """Give an answer's seconds, infinite where the restrictions leave none."""
    try:
        return SequenceScatterer(costs=costs, mode=mode, no_empty_rank=full)(lengths).step_time_s
    except (Infeasible, InputError):
        return float("inf")


@settings(max_examples=40, deadline=None)
@given(lengths=batches, ranks=st.sampled_from([3, 6, 8, 16]), mode=modes, full=st.booleans())
@example(lengths=[1588, 68, 470, 261, 1353, 11, 1761, 802, 1084], ranks=16, mode=Mode.FREE, full=False)
@example(lengths=[15, 98, 105, 230, 113, 8, 273, 132, 227, 166, 133, 199], ranks=3, mode=Mode.FREE, full=False)
def test_a_restriction_never_shortens_the_step_of_few_sequences(
    lengths: list[int], ranks: int, mode: Mode, full: bool
) -> None:
    costs = costs_of(ranks)
    shortest_s = seconds_of(costs, lengths, mode, full=full)
    degrees = range(1, len(costs.degrees) + 1)
    for count, own, whole in product(degrees, {mode, Mode.LOCKSTEP}, {full, True}):
        restricted_s = seconds_of(costs.of_degrees(count), lengths, own, full=whole)
        assert shortest_s <= restricted_s * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(lengths=batches, mode=modes, seed=st.integers(0, 1000))
def test_a_permuted_batch_gives_the_permuted_answer(lengths: list[int], mode: Mode, seed: int) -> None:
    permuted = np.random.default_rng(seed).permutation(lengths).tolist()
    one, other = solved(lengths, mode), solved(permuted, mode)
    assert one.step_time_s == other.step_time_s
    assert groups_of(one, lengths) == groups_of(other, permuted)


def test_the_same_batch_gives_the_same_answer() -> None:
    assert replace(solved(LENGTHS), seconds=0.0).document() == replace(solved(LENGTHS), seconds=0.0).document()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda groups: groups[0][0].pop(), "is in 0 groups"),
        (lambda groups: groups[0][0].append(groups[0][1][0]), "is in 2 groups"),
    ],
)
def test_the_checker_finds_lost_and_doubled_sequences(change: Any, fault: str) -> None:  # noqa: ANN401 - a mutation
    found = solved(LENGTHS, Mode.LOCKSTEP)
    sequences = [[group.sequences.tolist() for group in groups] for groups in found.micro_batches]
    change(sequences)
    assert any(fault in text for text in faults_of(found, sequences))


def faults_of(found: Scattered, sequences: list[list[list[int]]], *, shift: int = 0, room: int = 600) -> list[str]:
    micro_batches = [
        [(group.first_rank + shift, group.degree, own, group.time_s) for group, own in zip(groups, listed, strict=True)]
        for groups, listed in zip(found.micro_batches, sequences, strict=True)
    ]
    return list(
        faults(
            micro_batches,
            lengths=LENGTHS,
            ranks=8,
            node_ranks=4,
            most_tokens={degree: room * degree for degree in (1, 2, 4, 8)},
            step_time_s=found.step_time_s,
            lockstep=found.mode is Mode.LOCKSTEP,
        )
    )


def test_ranks_have_equally_many_micro_batches() -> None:
    lengths = [2000, 900, 300, 300, 200, 5]
    for mode in Mode:
        split = SequenceScatterer(costs=costs_of(), mode=mode)(lengths)
        turns = [split.turns_of_rank(rank) for rank in range(8)]
        assert {len(own) for own in turns} == {len(split.micro_batches)}
        assert [tuple(group for group in own if group is not None) for own in turns] == [
            split.of_rank(rank) for rank in range(8)
        ]
        full = SequenceScatterer(costs=costs_of(), mode=mode, no_empty_rank=True)(lengths)
        assert all(None not in full.turns_of_rank(rank) for rank in range(8))


def test_the_checker_finds_ranks_without_a_group() -> None:
    found = list(
        faults(
            [[(0, 1, [0], 1.0), (1, 1, [1], 1.0)], [(0, 1, [2], 1.0)]],
            lengths=[5, 5, 5], ranks=2, node_ranks=2, most_tokens={1: 5}, step_time_s=2.0, lockstep=True,
            every_rank=True,
        )
    )  # fmt: skip
    assert found == ["micro-batch 1: rank 1 has no group"]


def test_the_checker_finds_places_and_memory() -> None:
    found = solved(LENGTHS, Mode.LOCKSTEP)
    sequences = [[group.sequences.tolist() for group in groups] for groups in found.micro_batches]
    assert not faults_of(found, sequences)
    assert any("aligned" in text or "beyond" in text for text in faults_of(found, sequences, shift=1))
    assert any("its memory holds" in text for text in faults_of(found, sequences, room=50))
    assert any("take" in text for text in faults_of(replace(found, step_time_s=9.0), sequences))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "empty"),
        ([5, 0], "lengths.1: 0 is not a length"),
        ([-3], "-3 is not a length"),
        ([2.5], "2.5 is not a length"),
        ([float("nan")], "nan is not a length"),
        ([[1, 2]], "not 2 dimensions"),
        (np.ma.array([1, 2], mask=[0, 1]), "masked"),
        (np.array([2**63], dtype=np.uint64), "at most 1,099,511,627,776 tokens"),
        ([5, 10**22], "lengths.1: 1e\\+22 is not a length: at most 1,099,511,627,776 tokens"),
        ([10**400, 5.0], "lengths.0: 1e\\+400 is not a length: at most"),
        ([5, -(10**30)], "lengths.1: -1e\\+30 is not a length: a whole number of tokens"),
        (np.array([1, 2], dtype=object), "whole numbers"),
        ([[1], [1, 2]], "one list of whole numbers"),
        (["a"], "whole numbers"),
        ([100, 6000], "sequence 1 has 6,000 tokens; it would need 10 devices"),
        (np.ones(1_000_001, dtype=int), "1,000,001 sequences"),
    ],
)
def test_wrong_lengths_are_told(lengths: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceScatterer(costs=costs_of())(lengths)


@pytest.mark.parametrize(
    ("coefficient", "value", "message"),
    [("token_s", float("nan"), "finite"), ("square_s", -1.0, "negative"), ("fixed_s", float("inf"), "finite")],
)
def test_wrong_coefficients_are_told(coefficient: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        costs_of(**{coefficient: value})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mode", "x", "no mode is called 'x'"),
        ("method", 3, "method: 3 is not a name"),
        ("max_degree", 0, "must be 1 at least"),
        ("max_degree", 1.5, "1.5 is not a whole number"),
        ("degrees", [], "between 1 and the 16 ranks"),
        ("degrees", [0, 1], "between 1 and the 16 ranks"),
        ("degrees", 4, "a list of whole numbers"),
        ("degrees", ["a"], "'a' is not a whole number"),
        ("time_limit_s", float("nan"), "not a number of seconds"),
        ("time_limit_s", "5", "not a number of seconds"),
        ("measured", "nowhere.jsonl", "no such file"),
    ],
)
def test_wrong_options_of_the_library_are_told(option: str, value: object, message: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InputError, match=message):
        SequenceScatterer.of("llama-3.1-8b", "dgx-h100:16", **options)


@pytest.mark.parametrize("rank", [-1, 8, 1.5])
def test_there_are_no_other_ranks(rank: Any) -> None:  # noqa: ANN401 - what a caller may give
    with pytest.raises(InputError, match="rank"):
        solved(LENGTHS).of_rank(rank)


def test_costs_of_nothing_give_an_answer() -> None:
    free = costs_of(square_s=0.0, token_s=0.0, fixed_s=0.0, inside_s=0.0, outside_s=0.0)
    found = SequenceScatterer(costs=free)(LENGTHS)
    assert (found.step_time_s, found.gap, found.speedup) == (0.0, 0.0, 1.0)


def test_micro_batches_may_be_of_unlike_times() -> None:
    # One sequence of which memory asks all ranks, 1.589 s, and eight of 0.11 s, one a rank; with each micro-batch
    # 0.02 s. Equal times would come to 3.218 s.
    costs = costs_of(inside_s=0.0, outside_s=0.0, tokens_a_rank=390)
    found = SequenceScatterer(costs=costs, mode=Mode.LOCKSTEP)([*[100] * 8, 3100])
    longest_s = [max(group.time_s for group in groups) for groups in found.micro_batches]
    assert longest_s == pytest.approx([(3.1**2 + 3.1) / 8 + 0.02, 0.11 + 0.02])


@pytest.mark.parametrize(("fill", "beside"), [(True, [500]), (False, [])])
def test_groups_are_filled_up_with_the_longest_that_fit(fill: bool, beside: list[int]) -> None:
    # On four ranks 2000 tokens take 1.57 s; of the 0.23 s left 600 tokens would take 0.255, 500 take 0.2.
    costs, lengths = costs_of(tokens_a_rank=2000), np.array([2000, 600, 500, 120, 120, 120])
    groups = packed(costs, batch_of(costs, lengths), 1.8, fill=fill)
    assert groups is not None
    assert costs.degrees[groups.degree[groups.group[0]]] == 4
    assert lengths[1:][groups.group[1:] == groups.group[0]].tolist() == beside


def test_what_has_no_room_is_left_out() -> None:
    # 1.57 s hold 2000 tokens on four ranks and 800 (0.64 + 0.8 s) on each of the other four; 300 (0.39 s) nowhere.
    costs, lengths = costs_of(tokens_a_rank=2000), np.array([2000, *[800] * 4, 300, 50])
    groups = packed_part(costs, batch_of(costs, lengths), 1.58)
    assert np.flatnonzero(groups.group < 0).tolist() == [5]
    assert groups.degree[groups.group[[0, 1, 2, 3, 4]]].tolist() == [2, 0, 0, 0, 0]


def test_zero_stage_3_has_barriers() -> None:
    with pytest.raises(InputError, match="wait for one another"):
        SequenceScatterer(costs=replace(costs_of(), free_allowed=False), mode=Mode.FREE)


def test_costs_of_the_cost_model() -> None:
    scatterer = SequenceScatterer.of("llama-3.1-8b", "dgx-h100:16")
    costs = scatterer.costs
    assert costs.degrees.tolist() == [1, 2, 4, 8, 16]
    # Attention of a sequence is as in the model's own prediction: 32 layers of 32 heads of 128, forward and backward,
    # at less than the peak of 989 TFLOP/s but more than a third of it.
    length = 65_536
    flop = 32 * (4 + 10) * 32 * 128 * length**2 / 2
    assert 1 / 989e12 < costs.work_s(np.array([length]))[0] / flop < 3 / 989e12
    # The same tokens take longer the wider the group, and more in all across nodes.
    linear = costs.pieces[:, 0, 1] * costs.degrees
    assert (np.diff(linear) > 0).all()
    assert linear[-1] - linear[-2] > linear[-2] - linear[-3]
    found = scatterer([20_000, 500, 600, 700, 3_000, *[300] * 50])
    assert found.speedup >= 1


@pytest.mark.parametrize("devices", [24, 40])
def test_more_degrees_never_slow_a_step(devices: int) -> None:
    lengths = np.ceil(np.exp(np.random.default_rng(7).normal(7, 1.5, 100))).astype(int).clip(1, 200_000)
    few, more = (
        scatter_sequences(lengths, "llama-3.1-8b", f"dgx-h100:{devices}", any_degree=any_degree)
        for any_degree in (False, True)
    )
    assert more.step_time_s <= few.step_time_s
    assert more.lower_bound_s <= few.lower_bound_s


def test_ulysses_needs_heads_for_its_ranks() -> None:
    by_method = {
        method: SequenceScatterer.of("llama-3.1-8b", "dgx-h100:64", method=method).costs.degrees.max()
        for method in ("ulysses", "ring", "bidirectional-ring", "hybrid")
    }
    assert by_method == {"ulysses": 32, "ring": 64, "bidirectional-ring": 64, "hybrid": 64}


def test_linear_attention_has_no_squares() -> None:
    costs = SequenceScatterer.of("llama-3.1-8b", "dgx-h100:16", method="linear-attention").costs
    assert costs.work_s(np.array([10_000])).tolist() == [0.0]
    # Messages don't grow with the tokens: a token takes as long on two ranks as half of it does on one.
    assert costs.pieces[1, 0, 1] == pytest.approx(costs.pieces[0, 0, 1] / 2)


def test_states_that_do_not_fit_are_told() -> None:
    with pytest.raises(Infeasible, match="before the first token"):
        scatter_sequences([100], "llama-3.1-70b", "dgx-h100:64")
    assert scatter_sequences(
        [100],
        "llama-3.1-70b",
        "dgx-h100:64",
        Layout(tensor_parallel=8, sequence_parallel=True, data_parallel=8, zero_stage=3, zero_shard=8),
    ).micro_batches


def test_learned_positions_bound_lengths() -> None:
    with pytest.raises(InputError, match="has learned 2,048 positions"):
        scatter_sequences([100, 3000], "megatron-1.7b", "selene:8")


def test_a_wrong_split_is_refused() -> None:
    with pytest.raises(SolverFailed, match="sequence 0 is in 0 groups"):
        require_sound([], lengths=[1], ranks=8, node_ranks=4, most_tokens={1: 600}, step_time_s=0.0, lockstep=True)
