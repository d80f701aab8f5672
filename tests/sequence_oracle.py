"""The shortest step of a few sequences by integer programs, for batches that are too many for every split."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from meshwright.planner.sequences import GroupCosts

TIME_LIMIT_S = 30.0
# What the solver proves, relative.
PROOF = 1e-6
INFEASIBLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a group may be: in a micro-batch or in turn, of a degree, from a rank on."""

    turn: int
    degree: int
    first_rank: int


def least_step_s(costs: GroupCosts, lengths: list[int], micro_batches: int) -> float:
    """Give the least sum of the longest groups of so many micro-batches with barriers; inf where memory fails."""
    places = _places(costs, micro_batches)
    ends = [[place] for place in range(len(places))]
    return _solved_s(costs, lengths, places, ends, [places[own[0]].turn for own in ends], micro_batches)


def least_free_step_s(costs: GroupCosts, lengths: list[int], turns: int) -> float:
    """Give the least of the longest sum of a rank's groups, at most `turns` of them on each aligned block.

    As in sequence_brute_force.py; costs have one piece.
    """
    places = _places(costs, turns)
    ends = [
        [
            number
            for number, place in enumerate(places)
            if place.first_rank <= rank < place.first_rank + int(costs.degrees[place.degree])
        ]
        for rank in range(costs.ranks)
    ]
    return _solved_s(costs, lengths, places, ends, [0] * len(ends), 1, exclusive=False)


def _places(costs: GroupCosts, turns: int) -> list[_Place]:
    return [
        _Place(turn=turn, degree=at, first_rank=first)
        for turn in range(turns)
        for at, degree in enumerate(costs.degrees.tolist())
        for first in range(0, costs.ranks - degree + 1, degree)
    ]


def _solved_s(
    costs: GroupCosts,
    lengths: list[int],
    places: list[_Place],
    ends: list[list[int]],
    end_of: list[int],
    times: int,
    *,
    exclusive: bool = True,
) -> float:
    """Solve for x[sequence, place], used[place] and the times; each of `ends` is a sum that a time is no less than."""
    tokens = np.array(lengths)
    work_s = costs.work_s(tokens)
    count, many = len(lengths), len(places)
    size = count * many + many + times
    used = count * many
    rows: list[tuple[dict[int, float], float, float]] = []
    for item in range(count):
        rows.append(({item * many + place: 1.0 for place in range(many)}, 1.0, 1.0))
    for number, place in enumerate(places):
        row = {item * many + number: float(tokens[item]) for item in range(count)}
        rows.append((row | {used + number: -float(costs.most_tokens[place.degree])}, -np.inf, 0.0))
    for own, time in zip(ends, end_of, strict=True):
        for piece in range(costs.pieces.shape[1]):
            row = {used + many + time: -1.0}
            for number in own:
                a, b, c = costs.pieces[places[number].degree, piece]
                row |= {item * many + number: a * work_s[item] + b * tokens[item] for item in range(count)}
                row[used + number] = c
            rows.append((row, -np.inf, 0.0))
    if exclusive:
        for turn in range(times):
            for rank in range(costs.ranks):
                row = {
                    used + number: 1.0
                    for number, place in enumerate(places)
                    if place.turn == turn and 0 <= rank - place.first_rank < costs.degrees[place.degree]
                }
                rows.append((row, -np.inf, 1.0))
    matrix = lil_matrix((len(rows), size))
    for at, (row, _, _) in enumerate(rows):
        for column, value in row.items():
            matrix[at, column] = value
    answer = milp(
        np.concatenate([np.zeros(used + many), np.ones(times)]),
        constraints=LinearConstraint(matrix.tocsr(), [low for _, low, _ in rows], [high for _, _, high in rows]),
        bounds=Bounds(0.0, np.concatenate([np.ones(used + many), np.full(times, np.inf)])),
        integrality=np.concatenate([np.ones(used + many), np.zeros(times)]),
        options={"time_limit": TIME_LIMIT_S, "mip_rel_gap": PROOF},
    )
    if answer.status == INFEASIBLE:
        return float("inf")
    assert answer.status == 0, answer.message
    return float(answer.fun)
