"""Coefficients from measured groups: least squares with none negative, each group's error relative to its time.

    T = (square_s sum s^2 + (token_s + inside_s or outside_s) sum s) / d + fixed_s

inside_s is of groups of several ranks inside a node, outside_s of those beyond it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from meshwright.catalog.document import parse_json, read_text, validate
from meshwright.catalog.entry import Entry
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.sequences.group_costs import GroupCosts, uniform_costs

FEWEST_GROUPS = 5
# What two coefficients do is the same where the rows differ by less than this, relative.
DISTINCT = 1e-6


class MeasuredGroup(Entry):
    """A group that was timed: its degree, the lengths of its sequences, and its seconds forward and backward."""

    degree: Annotated[int, Field(ge=1, le=10**6, strict=True)]
    lengths: Annotated[list[Annotated[int, Field(ge=1, le=2**40, strict=True)]], Field(min_length=1)]
    time_s: Annotated[float, Field(gt=0, le=1e6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCosts:
    """Costs, of how many timed groups, and the fit's relative errors, the median one and the largest.

    unmeasured: the kinds of groups of which none was timed and some may be used.
    """

    costs: GroupCosts
    groups: int
    median_error: float
    worst_error: float
    unmeasured: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Give what a reader needs for judging it, for JSON."""
        return {
            "groups": self.groups,
            "median_error": self.median_error,
            "worst_error": self.worst_error,
            "unmeasured": list(self.unmeasured),
        }


def read_groups(path: Path) -> tuple[MeasuredGroup, ...]:
    """Read JSON lines of measured groups. Raises InputError."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    return tuple(
        validate(MeasuredGroup, parse_json(line, file=f"{path}: line {number}"), file=f"{path}: line {number}")
        for number, line in enumerate(lines, start=1)
    )


def fitted_costs(costs: GroupCosts, groups: Sequence[MeasuredGroup]) -> FittedCosts:
    """Give costs with coefficients fitted to measured groups, and all else as `costs` have it.

    Raises InputError where the groups are too few, or too alike to tell coefficients apart.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 - slow to import, and most splits do without

    if len(groups) < FEWEST_GROUPS:
        raise InputError(
            f"{len(groups)} measured groups; a fit needs at least {FEWEST_GROUPS}",
            path="--calibrate",
            hint="time groups of several degrees, with long sequences and with short ones",
        )
    rows = np.array([_row(group, costs.node_ranks) for group in groups])
    if not costs.attention:  # linear attention has no squares
        rows[:, 0] = 0.0
    times = np.array([group.time_s for group in groups])
    scale = np.maximum(np.abs(rows / times[:, np.newaxis]).max(axis=0), np.finfo(float).tiny)
    scaled = rows / times[:, np.newaxis] / scale
    if np.linalg.matrix_rank(scaled, tol=DISTINCT) < np.count_nonzero(rows.any(axis=0)):
        raise InputError(
            "the timed groups are too alike to tell attention, tokens and the fixed part of a group apart",
            path="--calibrate",
            hint="time groups of several degrees, with long sequences and with short ones",
        )
    fitted, _ = nnls(scaled, np.ones(len(groups)))
    square_s, token_s, inside_s, outside_s, fixed_s = (fitted / scale).tolist()
    made = uniform_costs(
        ranks=costs.ranks,
        node_ranks=costs.node_ranks,
        tokens_a_rank=1,
        square_s=square_s,
        token_s=token_s,
        inside_s=inside_s,
        outside_s=outside_s,
        fixed_s=fixed_s,
        degrees=costs.degrees,
    )
    errors = np.abs(rows @ (fitted / scale) / times - 1)
    return FittedCosts(
        costs=replace(
            costs,
            pieces=np.concatenate([made.pieces, _offloaded(costs)], axis=1),
            attention=made.attention if costs.attention else (),
        ),
        groups=len(groups),
        median_error=float(np.median(errors)),
        worst_error=float(errors.max()),
        unmeasured=_unmeasured(costs, rows),
    )


def _offloaded(costs: GroupCosts) -> FloatArray:
    """Give the pieces of what leaves for the host beyond a device's memory, which timed groups don't tell.

    They alone begin below zero: what the device holds costs nothing. Degrees without one repeat nothing that counts.
    """
    below = costs.pieces[..., 2] < 0
    kept = np.where(below[..., np.newaxis], costs.pieces, 0.0)
    return np.asarray(kept[:, below.any(axis=0)])


def _unmeasured(costs: GroupCosts, rows: FloatArray) -> tuple[str, ...]:
    inside = (costs.degrees > 1) & (costs.degrees <= costs.node_ranks)
    kinds = (
        ("groups of several ranks of a node", inside.any() and not rows[:, 2].any()),
        ("groups of several nodes", (costs.degrees > costs.node_ranks).any() and not rows[:, 3].any()),
    )
    return tuple(name for name, missing in kinds if missing)


def _row(group: MeasuredGroup, node_ranks: int) -> list[float]:
    squares, tokens = float(sum(length**2 for length in group.lengths)), float(sum(group.lengths))
    inside = tokens if 1 < group.degree <= node_ranks else 0.0
    outside = tokens if group.degree > node_ranks else 0.0
    return [squares / group.degree, tokens / group.degree, inside / group.degree, outside / group.degree, 1.0]
