"""The least maximum over all splits as an integer program, which checks the dynamic program.

    x[k, a, o] in {0, 1}     stage k begins at layer a and takes option o, of n_o layers and of cost c[k, a, o]
    z >= 0, an integer       the greatest cost of a stage

    minimise   z
    subject to
        one option a stage          sum_a,o x[k, a, o] = 1                          for each k       one_option
        stages follow one another   sum_a+n_o=b x[k, a, o] = sum_o x[k + 1, b, o]   for each k, b    follow
        greatest cost               z >= sum_a,o c[k, a, o] x[k, a, o]              for each k       greatest

Options that aren't open, among them all of the first stage that begin behind layer 0 and all of the last that end
before layer L, have no variable. Costs are whole numbers of a unit u, the greatest of them over 10^9, rounded down: so
that with z* the program's optimum, the least maximum is at least z* u and less than (z* + 1) u.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.layout import FloatArray, IntArray

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, IntVar

UNITS = 10**9

Taken = Mapping[tuple[int, int, int], "IntVar"]
"""x above, by stage, start and option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastMaximum:
    """Between which two values the least maximum is."""

    low: float
    high: float


def least_maximum(costs: FloatArray, sizes: IntArray) -> LeastMaximum | None:
    """Solve the program; None where no split is open.

    Args:
        costs: of each stage, start and option, [stages, layers, options]; infinite where it isn't open.
        sizes: layers of each option, [options].

    Raises SolverFailed where the solver comes to no answer.

    """
    from ortools.sat.python import cp_model  # noqa: PLC0415 - slow to import

    is_open = np.isfinite(costs)
    unit = float(costs[is_open].max(initial=0.0)) / UNITS or 1.0
    whole = np.floor(np.where(is_open, costs, 0.0) / unit).astype(np.int64)
    model = cp_model.CpModel()
    taken = {(stage, start, option): model.new_bool_var("") for stage, start, option in np.argwhere(is_open).tolist()}
    stages, layers, _ = costs.shape
    one_option(model, taken, stages=stages)
    follow(model, taken, sizes=sizes, stages=stages, layers=layers)
    greatest(model, taken, costs=whole)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise SolverFailed(
            f"the integer program of a split ended as {solver.status_name(status).lower()}",
            hint="please report it with the model and the cluster",
        )
    return LeastMaximum(low=solver.objective_value * unit, high=(solver.objective_value + 1) * unit)


def one_option(model: CpModel, taken: Taken, *, stages: int) -> None:
    """Let each stage take one option."""
    for stage in range(stages):
        model.add_exactly_one(variable for (own, _, _), variable in taken.items() if own == stage)


def follow(model: CpModel, taken: Taken, *, sizes: IntArray, stages: int, layers: int) -> None:
    """Let each stage begin where the one before it ends."""
    for stage in range(stages - 1):
        for layer in range(layers):
            ends = [
                variable
                for (own, start, option), variable in taken.items()
                if own == stage and start + int(sizes[option]) == layer
            ]
            begins = [variable for (own, start, _), variable in taken.items() if (own, start) == (stage + 1, layer)]
            model.add(sum(ends) == sum(begins))


def greatest(model: CpModel, taken: Taken, *, costs: IntArray) -> None:
    """Make the greatest cost of a stage the least."""
    maximum = model.new_int_var(0, UNITS, "")
    for stage in range(len(costs)):
        own = [int(costs[key]) * variable for key, variable in taken.items() if key[0] == stage]
        model.add(maximum >= sum(own))
    model.minimize(maximum)
