"""A sharper bound on what a step takes: linear programs over shares of sequences and numbers of groups.

Variables: x[i, d], the share of sequence i in groups of degree d; n[d], their number; y[d], the seconds for which they
work beside their fixed part; all continuous unless said. x[i, d] is there only where a group of degree d takes the
sequence alone no longer than T'. Every step that is no longer than T' satisfies, with
load and fixed part of each degree's first piece,

    each sequence      sum over d of x[i, d] = 1
    work               sum over i of load(i, d) x[i, d] <= y[d]
    tokens             sum over i of tokens(i) x[i, d] <= most_tokens(d) n[d]
    ranks              sum of d f(load(i, d) / (T' - least fixed part)) x[i, d] <= ranks, for each f below
    halves             sum over sequences that fill more than half a group of x[i, d] <= n[d]    (memory; time)

    one micro-batch    y[d] <= n[d] (T - fixed(d)); sum of d n[d] <= ranks; n whole: T is found by halving, each time
                       asking a MILP whether there is such a split
    several, M >= 2    sum of d n[d] <= ranks M; sum of d (y[d] + (fixed(d) - least fixed part) n[d]) <= ranks (T -
                       M least fixed part), as each rank has a group or waits for one in each micro-batch; T' - (M - 1)
                       least fixed part in the place of T in y[d] <= n[d] (...); M whole: one MILP for the least T
    no barrier         sum of d (y[d] + fixed(d) n[d]) <= ranks T, with n whole, which counts groups in turn on the
                       same ranks; sum of d y[d] <= ranks (T - least fixed part), as ranks that work have a group; and
                       sum of d (y[d] + fixed(d) n[d] + sum over i of lost(i, d) x[i, d]) <= ranks T

A bound B(T') that is above T' says that no step takes T' or less: the largest such T' is halved up to.

What is lost beside a long sequence, without barriers: one of load l > (T' - least fixed part) / 2 at degree d leaves
its ranks r = T - fixed(d) - l seconds, and no rank has two such sequences. Either a rank has another group, of a share
q of what a group can hold in time and memory, so that counting n by such shares leaves out 1 - q of its fixed part; or
it has sequences of load j in the same group, and the rest is idle. For any k in [0, 1], min((1 - q) least fixed part,
k r) - k j is no more than is lost, either way. So lost(i, d) is that minimum for long ones, r by a T that is known to
be too short and q by T', and -k[d] load(i, d) for others; with k[d] = 1 - 1 / (the least of how many times as many
ranks' seconds another sequence takes at d as at its best degree), that asks of others no less than their best does.

The rows of ranks and halves are dual-feasible functions (Fekete and Schepers 2001, Mathematical Programming 91): with
a share l, f(x) is 1 above 1 - l, 0 below l and x between, of which no rank has more than 1; two sequences of more than
half don't share a group. Sequences whose lengths differ by less than GRAIN are counted as the shortest of them, which
lowers the bound and no more.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.quick_bound import fewest_micro_batches, quick_bound_s

Matrix: TypeAlias = Any  # scipy's sparse ones, which have no types

GRAIN = 2e-3
# The same of batches of no more sequences than this, whose programs are small.
FINE_GRAIN = 2e-4
FEW_SEQUENCES = 1024
# The one-micro-batch bound is found to this.
PRECISION = 5e-4
ROUNDS = 7
# Of the dual-feasible functions of ranks.
SHARES = (0.5, 0.4, 1 / 3, 0.25, 0.2, 0.1)
# A MILP that takes longer says what it knows.
SOLVER_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Classes:
    """Sequences of about the same length: how many, and the tokens, loads and time alone of the shortest."""

    count: FloatArray
    tokens: FloatArray
    load_s: FloatArray
    alone_s: FloatArray


def certified_bound_s(costs: GroupCosts, batch: Batch, known_s: float, *, free: bool) -> float:
    """Give what a step takes at least, in seconds: at most `known_s`, which a split is known to take.

    free: whether ranks may go on without barriers; a step with them is then no shorter than one without.
    """
    classes = _classes(batch)
    quick_s = quick_bound_s(costs, batch)

    def bound_s(limit_s: float, least_s: float) -> float:
        """Give what a step of `least_s` to `limit_s` takes at least; above the latter where there is none."""
        if free:
            return _free_s(costs, classes, limit_s, least_s)
        several_s = _several_s(costs, batch, classes, limit_s)
        if fewest_micro_batches(costs, batch) > 1:
            return several_s
        return min(several_s, _single_s(costs, classes, quick_s, limit_s))

    low, high = min(max(bound_s(known_s, quick_s), quick_s), known_s), known_s
    for _ in range(ROUNDS):
        if high <= low * (1 + PRECISION):
            break
        middle = 0.5 * (low + high)
        low, high = (middle, high) if bound_s(middle, low) > middle else (low, middle)
    return low


def _classes(batch: Batch) -> _Classes:
    order = np.argsort(batch.tokens)
    grain = FINE_GRAIN if len(order) <= FEW_SEQUENCES else GRAIN
    step = np.floor(np.log(batch.tokens[order]) / np.log1p(grain))
    first = np.flatnonzero(np.diff(step, prepend=-1.0))
    shortest = order[first]
    return _Classes(
        count=np.diff(np.append(first, len(order))).astype(float),
        tokens=batch.tokens[shortest].astype(float),
        load_s=batch.load_s[:, shortest],
        alone_s=batch.alone_s[:, shortest],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Program:
    """Rows on x, y and n; columns are the pairs (class, degree) that are allowed, then y, then n."""

    shares: FloatArray
    equal: Matrix
    counts: FloatArray
    below: Matrix
    most: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prices:
    """What the columns of a program cost, in ranks' seconds."""

    x: FloatArray | float = 0.0
    y: FloatArray
    n: FloatArray | float = 0.0


def _program(costs: GroupCosts, classes: _Classes, limit_s: float, room_s: FloatArray) -> _Program | None:
    """Give the rows that all modes share, None where a sequence has no degree.

    room_s: seconds of load that a group of each degree has room for.
    """
    from scipy.sparse import coo_matrix, eye, hstack, vstack  # noqa: PLC0415 - loaded where a certificate is asked for

    allowed = limit_s >= classes.alone_s.T
    if not allowed.any(axis=1).all():
        return None
    item, degree = np.nonzero(allowed)
    degrees, size = len(costs.degrees), len(item)
    column = np.arange(size)

    def by_degree(values: FloatArray) -> Matrix:
        return coo_matrix((values, (degree, column)), shape=(degrees, size)).tocsr()

    load_s, tokens = classes.load_s[degree, item], classes.tokens[item]
    half_time = (load_s > room_s[degree] / 2).astype(float)
    half_memory = (tokens > costs.most_tokens[degree] / 2).astype(float)
    none, one = coo_matrix((degrees, degrees)), eye(degrees)
    most = coo_matrix((costs.most_tokens.astype(float), (range(degrees), range(degrees))), shape=(degrees, degrees))
    below = vstack(
        [
            hstack([by_degree(load_s), -one, none]),
            hstack([by_degree(tokens), none, -most]),
            hstack([by_degree(half_time), none, -one]),
            hstack([by_degree(half_memory), none, -one]),
            hstack([coo_matrix((degrees, size)), one, -_diagonal(room_s)]),
        ]
    ).tocsr()
    dual = [_dual_feasible(load_s / (limit_s - float(costs.fixed_s.min())), share) for share in SHARES]
    of_ranks = np.array([costs.degrees[degree] * values for values in dual])
    each = coo_matrix((np.ones(size), (item, column)), shape=(len(classes.count), size))
    equal = hstack([each, coo_matrix((len(classes.count), 2 * degrees))]).tocsr()
    wide = hstack([coo_matrix(of_ranks), coo_matrix((len(SHARES), 2 * degrees))])
    return _Program(
        shares=classes.count[item],
        equal=equal,
        counts=classes.count,
        below=vstack([below, wide]).tocsr(),
        most=np.concatenate([np.zeros(below.shape[0]), np.full(len(SHARES), float(costs.ranks))]),
    )


def _dual_feasible(filled: FloatArray, share: float) -> FloatArray:
    return np.where(filled > 1 - share, 1.0, np.where(filled < share, 0.0, filled))


def _diagonal(values: FloatArray) -> Matrix:
    from scipy.sparse import diags  # noqa: PLC0415 - loaded where a certificate is asked for

    return diags(values)


def _single_s(costs: GroupCosts, classes: _Classes, low: float, high: float) -> float:
    while high > low * (1 + PRECISION):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _fits_one(costs, classes, middle) else (middle, high)
    return low


def _fits_one(costs: GroupCosts, classes: _Classes, limit_s: float) -> bool:
    """Tell whether the rows leave a split into one micro-batch of `limit_s`; true where the solver can't tell."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - loaded where a certificate is asked for

    room_s = np.maximum(limit_s - costs.fixed_s, 0.0)
    program = _program(costs, classes, limit_s, room_s)
    if program is None:
        return False
    degrees, size = len(costs.degrees), len(program.shares)
    ranks = np.concatenate([np.zeros(size + degrees), costs.degrees])[np.newaxis]
    most = np.concatenate([program.shares, np.full(degrees, np.inf), costs.ranks // costs.degrees])
    answer = milp(
        np.concatenate([np.zeros(size + degrees), costs.degrees / costs.ranks]),
        constraints=[
            LinearConstraint(program.equal, program.counts, program.counts),
            LinearConstraint(program.below, -np.inf, program.most),
            LinearConstraint(ranks, -np.inf, costs.ranks),
        ],
        bounds=Bounds(0.0, most),
        integrality=np.concatenate([np.zeros(size + degrees), np.ones(degrees)]),
        options={"time_limit": SOLVER_LIMIT_S},
    )
    return int(answer.status) != _INFEASIBLE


_INFEASIBLE = 2


def _least(
    costs: GroupCosts,
    program: _Program,
    prices: _Prices,
    *,
    limit_s: float,
    fixed_s: float = 0.0,
    fewest: int = 0,
    whole: bool = True,
) -> float:
    """Give the least T of ranks T >= prices of x, y and n + ranks fixed_s M over splits into M micro-batches.

    M is `fewest` at least. whole: whether n is. Where fixed_s is 0 micro-batches aren't limited by the ranks.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - loaded where a certificate is asked for
    from scipy.sparse import coo_matrix, hstack  # noqa: PLC0415 - loaded where a certificate is asked for

    degrees, size = len(costs.degrees), len(program.shares)
    none = np.zeros(degrees)
    all_prices = np.concatenate([np.zeros(size) + prices.x, none + prices.y, none + prices.n])
    objective = np.append(all_prices / costs.ranks, fixed_s)
    ranks = np.concatenate([np.zeros(size + degrees), costs.degrees, [-float(costs.ranks)]])[np.newaxis]
    constraints = [
        LinearConstraint(_wider(program.equal), program.counts, program.counts),
        LinearConstraint(_wider(program.below), -np.inf, program.most),
    ]
    if fixed_s:
        constraints.append(LinearConstraint(hstack([coo_matrix(ranks)]), -np.inf, 0.0))
    answer = milp(
        objective,
        constraints=constraints,
        bounds=Bounds(
            np.concatenate([np.zeros(size + 2 * degrees), [float(fewest)]]),
            np.concatenate([program.shares, np.full(2 * degrees + 1, np.inf)]),
        ),
        integrality=np.concatenate([np.zeros(size + degrees), np.full(degrees, float(whole)), [1.0]]),
        options={"time_limit": SOLVER_LIMIT_S, "mip_rel_gap": PRECISION},
    )
    if int(answer.status) == _INFEASIBLE:
        return limit_s
    bound = answer.mip_dual_bound
    return 0.0 if bound is None else float(bound)


def _wider(rows: Matrix) -> Matrix:
    """Give rows with a column of zeros more, for the number of micro-batches."""
    from scipy.sparse import coo_matrix, hstack  # noqa: PLC0415 - loaded where a certificate is asked for

    return hstack([rows, coo_matrix((rows.shape[0], 1))]).tocsr()


def _several_s(costs: GroupCosts, batch: Batch, classes: _Classes, known_s: float) -> float:
    fewest, least_s = max(fewest_micro_batches(costs, batch), 2), float(costs.fixed_s.min())
    limit_s = known_s - (fewest - 1) * least_s
    program = _program(costs, classes, limit_s, np.maximum(limit_s - costs.fixed_s, 0.0))
    if program is None:
        return known_s
    return _least(
        costs,
        program,
        _Prices(y=costs.degrees.astype(float), n=costs.degrees * (costs.fixed_s - least_s)),
        fixed_s=least_s,
        fewest=fewest,
        limit_s=known_s,
    )


def _free_s(costs: GroupCosts, classes: _Classes, limit_s: float, least_s: float) -> float:
    fixed_s = float(costs.fixed_s.min())
    program = _program(costs, classes, limit_s, np.maximum(limit_s - costs.fixed_s, 0.0))
    if program is None:
        return limit_s
    degrees = costs.degrees.astype(float)
    groups_s = degrees * costs.fixed_s
    lost_s = _lost_s(costs, classes, limit_s, least_s)
    with_groups = _least(costs, program, _Prices(y=degrees, n=groups_s), limit_s=limit_s)
    with_lost = _least(costs, program, _Prices(x=lost_s, y=degrees, n=groups_s), limit_s=limit_s, whole=False)
    with_one = _least(costs, program, _Prices(y=degrees), limit_s=limit_s)
    return max(with_groups, with_lost, with_one + fixed_s)


def _lost_s(costs: GroupCosts, classes: _Classes, limit_s: float, least_s: float) -> FloatArray:
    """Give d lost(i, d) of the columns of the program, in ranks' seconds."""
    in_time = classes.alone_s <= limit_s
    least_fixed_s = float(costs.fixed_s.min())
    fixed_s, degrees = costs.fixed_s[:, np.newaxis], costs.degrees[:, np.newaxis]
    long = in_time & (classes.load_s > (limit_s - least_fixed_s) / 2)
    area_s = np.where(in_time, classes.load_s * degrees, np.inf)
    times = np.where(in_time & ~long, classes.load_s * degrees / area_s.min(axis=0), np.inf).min(axis=1)
    share = 1.0 - 1.0 / np.maximum(times, 1.0)[:, np.newaxis]
    # The longest of a class, whose load grows with the square of its length at most.
    left_s = np.maximum(least_s - fixed_s - classes.load_s * (1 + GRAIN) ** 2, 0.0)
    held = _held(costs, classes, np.maximum(limit_s - fixed_s - classes.load_s - least_fixed_s, 0.0), limit_s)
    lost_s = np.where(long, np.minimum((1.0 - held) * least_fixed_s, share * left_s), -share * classes.load_s)
    item, degree = np.nonzero(in_time.T)
    return np.asarray((degrees * lost_s)[degree, item])


def _held(costs: GroupCosts, classes: _Classes, seconds: FloatArray, limit_s: float) -> FloatArray:
    """Give the largest share of a group of any degree that is held by what takes so long, shape as given."""
    held = np.zeros_like(seconds)
    for degree, most_tokens in enumerate(costs.most_tokens.tolist()):
        load_s = classes.load_s[degree]
        time = seconds / (limit_s - float(costs.fixed_s[degree]))
        memory = seconds * float((classes.tokens / load_s).max()) / most_tokens
        half_s = float(load_s[classes.tokens > most_tokens / 2].min(initial=np.inf))
        held = np.maximum(held, np.where(seconds >= half_s, 1.0, np.maximum(time, memory)))
    return np.minimum(held, 1.0)
