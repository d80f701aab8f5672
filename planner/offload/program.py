"""The variables of the linear program, and how its rows are written. pulp is slow to import: only here, and late."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from meshwright.costmodels.layout import BoolArray
from meshwright.planner.offload.problem import Problem

# Solvers' tolerances are absolute: bytes are counted by billions, seconds by the work of a layer.
GB = 1e9

Variable = Any
Term = tuple[Variable, float]


class Program:
    """A program being built for a problem, in the letters of linear_program.py."""

    __slots__ = (
        "again",
        "computed",
        "cpu",
        "done",
        "fetched",
        "gone",
        "largest",
        "leave",
        "lp",
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
        import pulp  # noqa: PLC0415

        self.problem, layers = problem, problem.layers
        count = len(layers)
        self.unit_s = max(float((layers.forward_s + layers.backward_s).mean()), 1e-9)
        self.lp = pulp.LpProblem("offload", pulp.LpMinimize)
        self.leave = self._shares("a", layers.kept_bytes > 0)
        self.again = self._shares("b", problem.again & (layers.kept_bytes > 0))
        streams = np.flatnonzero((layers.weight_bytes > 0) & problem.streamable).tolist()
        self.streamed = {layer: self.lp.add_variable(f"q{layer}", 0, 1) for layer in streams}
        self.cpu, self.through, self.resident, self.nvme = (self.lp.add_variable(name, 0, 1) for name in "cfgn")
        self.largest = {name: self.lp.add_variable(name, 0) for name in "uvz"}
        self.passes, self.optimizer = self.lp.add_variable("T", 0), self.lp.add_variable("U", 0)
        self.computed, self.gone, self.done, self.returned = (self._times(name, count) for name in "xdyr")
        self.fetched = self._times("h", count if streams else 0)

    def _times(self, name: str, count: int) -> list[Variable]:
        return [self.lp.add_variable(f"{name}{layer}", 0) for layer in range(count)]

    def _shares(self, name: str, wanted: BoolArray) -> dict[int, dict[int, Variable]]:
        """Give variables by layer and class."""
        return {
            layer: {kind: self.lp.add_variable(f"{name}{layer}_{kind}", 0, 1) for kind in np.flatnonzero(row).tolist()}
            for layer, row in enumerate(wanted)
        }

    def at_most(self, terms: Sequence[Term], bound: float) -> None:
        """Add a row: variables times factors sum to at most the bound."""
        self._row(terms, bound, sense=-1)

    def equal(self, terms: Sequence[Term], value: float) -> None:
        """Add a row: variables times factors sum to the value."""
        self._row(terms, value, sense=0)

    def _row(self, terms: Sequence[Term], bound: float, *, sense: int) -> None:
        import pulp  # noqa: PLC0415

        # An expression takes the last factor of a variable that is there twice.
        factors = pulp.LpAffineExpression()
        for variable, factor in terms:
            factors[variable] = factors.get(variable, 0.0) + factor
        self.lp.addConstraint(pulp.LpConstraint(factors, sense, rhs=bound))

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
