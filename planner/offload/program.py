"""The variables of the linear program, and how its rows are written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from meshwright.costmodels.layout import BoolArray
from meshwright.planner.offload.problem import Problem

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult
    from scipy.sparse import csr_array

# Solvers' tolerances are absolute: bytes are counted by billions, seconds by the work of a layer.
GB = 1e9

# A column of the program.
Variable = int
Term = tuple[Variable, float]


class _Rows:
    """Rows of a sparse matrix as they are added, and what bounds them."""

    __slots__ = ("bounds", "columns", "factors", "rows")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.columns: list[Variable] = []
        self.factors: list[float] = []
        self.bounds: list[float] = []

    def add(self, terms: Sequence[Term], bound: float) -> None:
        """Add a row; factors of a variable that is there twice are summed."""
        self.rows += [len(self.bounds)] * len(terms)
        self.columns += [variable for variable, _ in terms]
        self.factors += [factor for _, factor in terms]
        self.bounds.append(bound)

    def matrix(self, columns: int) -> "csr_array":
        """Give the matrix of the rows: [rows, columns]."""
        from scipy.sparse import csr_array  # noqa: PLC0415 - slow to import

        return csr_array((self.factors, (self.rows, self.columns)), shape=(len(self.bounds), columns))


class Program:
    """A program being built for a problem, in the letters of linear_program.py."""

    __slots__ = (
        "_at_most",
        "_equal",
        "_upper",
        "again",
        "computed",
        "cpu",
        "done",
        "fetched",
        "gone",
        "largest",
        "leave",
        "nvme",
        "optimizer",
        "passes",
        "problem",
        "resident",
        "returned",
        "streamed",
        "through",
        "unit_s",
    )

    def __init__(self, problem: Problem) -> None:
        self.problem, layers = problem, problem.layers
        count = len(layers)
        self.unit_s = max(float((layers.forward_s + layers.backward_s).mean()), 1e-9)
        self._upper: list[float] = []
        self._at_most, self._equal = _Rows(), _Rows()
        self.leave = self._shares(layers.kept_bytes > 0)
        self.again = self._shares(problem.again & (layers.kept_bytes > 0))
        streams = np.flatnonzero((layers.weight_bytes > 0) & problem.streamable).tolist()
        self.streamed = {layer: self._variable(1.0) for layer in streams}
        self.cpu, self.through, self.resident, self.nvme = (self._variable(1.0) for _ in range(4))
        self.largest = {name: self._variable() for name in "uvz"}
        self.passes, self.optimizer = self._variable(), self._variable()
        self.computed, self.gone, self.done, self.returned = (self._times(count) for _ in range(4))
        self.fetched = self._times(count if streams else 0)

    def _variable(self, upper: float = np.inf) -> Variable:
        """Add a variable of no less than zero."""
        self._upper.append(upper)
        return len(self._upper) - 1

    def _times(self, count: int) -> list[Variable]:
        return [self._variable() for _ in range(count)]

    def _shares(self, wanted: BoolArray) -> dict[int, dict[int, Variable]]:
        """Give variables by layer and class."""
        return {
            layer: {kind: self._variable(1.0) for kind in np.flatnonzero(row).tolist()}
            for layer, row in enumerate(wanted)
        }

    def at_most(self, terms: Sequence[Term], bound: float) -> None:
        """Add a row: variables times factors sum to at most the bound."""
        self._at_most.add(terms, bound)

    def equal(self, terms: Sequence[Term], value: float) -> None:
        """Add a row: variables times factors sum to the value."""
        self._equal.add(terms, value)

    def minimised(self, terms: Sequence[Term]) -> "OptimizeResult":
        """Solve for the least sum of variables times factors."""
        from scipy.optimize import linprog  # noqa: PLC0415 - slow to import

        columns = len(self._upper)
        cost = np.zeros(columns)
        for variable, factor in terms:
            cost[variable] += factor
        return linprog(
            cost,
            A_ub=self._at_most.matrix(columns),
            b_ub=self._at_most.bounds,
            A_eq=self._equal.matrix(columns),
            b_eq=self._equal.bounds,
            bounds=np.column_stack([np.zeros(columns), self._upper]),
            method="highs",
        )

    def copy_terms(self, layer: int) -> list[Term]:
        """Give the time of a layer's activations on the link."""
        rate = self.problem.host.copy_bytes_per_s * self.unit_s
        kept = self.problem.layers.kept_bytes[layer]
        return [(share, float(kept[kind]) / rate) for kind, share in self.leave[layer].items()]

    def weight_terms(self, layer: int) -> list[Term]:
        """Give the time of a layer's parameters on the link."""
        if layer not in self.streamed:
            return []
        rate = self.problem.host.copy_bytes_per_s * self.unit_s
        return [(self.streamed[layer], float(self.problem.layers.weight_bytes[layer]) / rate)]

    def again_terms(self, layer: int) -> list[Term]:
        """Give the time of what a layer computes again."""
        seconds = self.problem.layers.again_s[layer]
        return [(share, float(seconds[kind]) / self.unit_s) for kind, share in self.again[layer].items()]
