"""The assignment of stages, layouts and micro-batches on islands as integer programs, solved by HiGHS: an oracle.

A pipeline of stages s of P (links that are like stages among them), M micro-batches, W_s = min(P - 1 - s, M - 1):

    minimise    T + E
    choose      y[s, o] is 0 or 1             stage s holds the layers from a start on, as many as option o says
    one         sum over o of y[s, o] = 1
    cover       sum over o that end at e of y[s, o] = sum over o that start at e of y[s + 1, o]     for each layer e
    memory      y[s, o] = 0 where option o doesn't fit
    passes      f_s, b_s = sum over o of y[s, o] x its forward, backward seconds;    E >= those of its end
    reach       R_j >= sum of f over [0, j] + W_j f_a                               a <= j
    drain       D_j >= sum of b over [0, j] + W_j b_a                               a <= j
    turn        T >= R_j + sum of b over (k, j] + (M - W_k - 1) (f_k + b_k) + sum of f over (k, i] + D_i
                                                                                     i, j >= k, M > P - k
                T >= R_j + D_j                                                       M <= P - j

Parties p that train replicas, each with one of its layouts j, of q_j sequences a round and a_j + c_j m seconds for m:

    minimise    t
    choose      z[p, j] is 0 or 1, m[p, j] whole, u[p, j, h] is 0 or 1: a last micro-batch of 1 / 2^h, in d_jh seconds
    one         sum over j of z[p, j] = 1;    m[p, j] <= most z[p, j];    sum over h of u[p, j, h] <= m[p, j], and <= 1
    done        a_j z[p, j] + c_j m[p, j] + sum over h of d_jh u[p, j, h] <= t       summed over j
    batch       sum over p, j of q_j m[p, j] + sum over h of (q_j / 2^h) u[p, j, h] >= B
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.mixed.chain_cut import Stages
from meshwright.planner.mixed.laws import Laws

Terms = dict[int, float]


@dataclass
class Program:
    """Variables with their bounds, and rows of terms with theirs."""

    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[Terms] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def variable(self, *, upper: float = np.inf, whole: bool = False) -> int:
        """Add a variable from 0 to `upper`, and give its number."""
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.upper) - 1

    def require(self, terms: Sequence[tuple[int, float]], *, low: float = -np.inf, high: float = np.inf) -> None:
        """Require a sum of terms to lie within bounds."""
        row: Terms = {}
        for number, factor in terms:
            row[number] = row.get(number, 0.0) + factor
        self.rows.append(row)
        self.low.append(low)
        self.high.append(high)

    def least(self, terms: Sequence[tuple[int, float]]) -> float:
        """Give the least of a sum of terms; infinite where nothing holds."""
        at = [(row, number, factor) for row, each in enumerate(self.rows) for number, factor in each.items()]
        where, number, factors = zip(*at, strict=True)
        matrix = csr_array((factors, (where, number)), shape=(len(self.rows), len(self.upper)))
        cost = np.zeros(len(self.upper))
        for variable, factor in terms:
            cost[variable] += factor
        found = milp(
            cost,
            constraints=LinearConstraint(matrix, np.array(self.low), np.array(self.high)),
            bounds=Bounds(0, np.array(self.upper)),
            integrality=np.array(self.whole, dtype=int),
            options={"mip_rel_gap": 0.0},
        )
        return float(found.fun) if found.x is not None else np.inf


def least_pipeline_s(stages: Stages, total: int) -> float:
    """The least step of a configuration without overhead, over all splits; infinite where none fits."""
    program, options = Program(), stages.options
    width, layers = len(stages.island), len(stages.job.model.layers)
    figures, starts, sizes = options.figures, *np.meshgrid(np.arange(layers), options.sizes, indexing="ij")
    sums: list[dict[str, list[tuple[int, float]]]] = []
    before: dict[int, list[tuple[int, float]]] = {0: []}
    last = program.variable()
    for stage in range(width):
        at = np.argwhere(options.is_open[stage])
        chosen = [program.variable(upper=1.0, whole=True) for _ in at]
        program.require([(one, 1.0) for one in chosen], low=1.0, high=1.0)
        begins: dict[int, list[tuple[int, float]]] = {}
        ends: dict[int, list[tuple[int, float]]] = {}
        own: dict[str, list[tuple[int, float]]] = {"forward_s": [], "backward_s": [], "end_s": []}
        for one, (start, option) in zip(chosen, at.tolist(), strict=True):
            begins.setdefault(int(starts[start, option]), []).append((one, 1.0))
            ends.setdefault(int(starts[start, option] + sizes[start, option]), []).append((one, -1.0))
            for name, terms in own.items():
                terms.append((one, float(getattr(figures, name)[stage, start, option])))
        for edge in set(begins) | set(before) if stage else set():
            program.require([*begins.get(edge, []), *before.get(edge, [])], low=0.0, high=0.0)
        program.require([(last, 1.0), *_times(own["end_s"], -1.0)], low=0.0)
        before = ends
        sums.append(own)
    step = _turns(program, sums, total)
    return program.least([(step, 1.0), (last, 1.0)])


def _turns(program: Program, sums: Sequence[dict[str, list[tuple[int, float]]]], total: int) -> int:
    """Require of a step to be no shorter than any chain of passes, and give its number."""
    width, step = len(sums), program.variable()
    forward, backward = ([own[name] for own in sums] for name in ("forward_s", "backward_s"))
    warm = [min(width - 1 - stage, total - 1) for stage in range(width)]
    reach, drain = ([program.variable() for _ in range(width)] for _ in range(2))
    for turn in range(width):
        for ends, passes in ((reach[turn], forward), (drain[turn], backward)):
            until = [term for stage in range(turn + 1) for term in _times(passes[stage], -1.0)]
            for slowest in range(turn + 1):
                program.require([(ends, 1.0), *until, *_times(passes[slowest], -float(warm[turn]))], low=0.0)
        if total <= width - turn:
            program.require([(step, 1.0), (reach[turn], -1.0), (drain[turn], -1.0)], low=0.0)
            continue
        pairs = float(total - (width - 1 - turn) - 1)
        own = [*_times(forward[turn], -pairs), *_times(backward[turn], -pairs)]
        for there in range(turn, width):
            back = [term for stage in range(turn + 1, there + 1) for term in _times(backward[stage], -1.0)]
            for again in range(turn, width):
                on = [term for stage in range(turn + 1, again + 1) for term in _times(forward[stage], -1.0)]
                program.require([(step, 1.0), (reach[there], -1.0), (drain[again], -1.0), *own, *back, *on], low=0.0)
    return step


def _times(terms: Sequence[tuple[int, float]], factor: float) -> list[tuple[int, float]]:
    return [(number, factor * value) for number, value in terms]


def least_shares_s(parties: Sequence[Laws], *, batch: int) -> float:
    """The least time by which parties have done a batch, each with one of its layouts."""
    program = Program()
    until = program.variable()
    made: list[tuple[int, float]] = []
    for own in parties:
        picked, took = [], [(until, 1.0)]
        for row in range(len(own)):
            layout, quantum = program.variable(upper=1.0, whole=True), float(own.quantum[row])
            most = float(np.ceil(batch / own.sequences[row] / quantum))
            rounds = program.variable(upper=most, whole=True)
            program.require([(layout, most), (rounds, -1.0)], low=0.0)
            picked.append((layout, 1.0))
            took += [(layout, -float(own.fixed_s[row])), (rounds, -quantum * float(own.each_s[row]))]
            made.append((rounds, quantum * float(own.sequences[row])))
            tails: list[tuple[int, float]] = []
            for halving, seconds in enumerate(_column(own.tails_s, row), start=1):
                if np.isfinite(seconds) and own.sequences[row] >> halving:
                    tail = program.variable(upper=1.0, whole=True)
                    tails.append((tail, 1.0))
                    took.append((tail, -seconds))
                    made.append((tail, float(own.sequences[row] >> halving)))
            if tails:
                program.require(tails, high=1.0)
                program.require([(rounds, 1.0), *_times(tails, -1.0)], low=0.0)
        program.require(picked, low=1.0, high=1.0)
        program.require(took, low=0.0)
    program.require(made, low=float(batch))
    return program.least([(until, 1.0)])


def _column(values: FloatArray, row: int) -> list[float]:
    return [float(each) for each in values[:, row]]
