"""What other systems' splits are, from what their papers and documentation say, for the benchmark.

Megatron-Core's dynamic context parallelism: each sample takes the least power of two of ranks whose memory holds it;
micro-batch by micro-batch the longest samples first, each to a new group while ranks are left, else to the group of
its size with the least work that has room, as long as that isn't ahead of the others; ranks left over widen groups.

FlexSP (arXiv 2412.01523): samples sorted by length are cut into micro-batches of equal tokens, their lengths put into
16 buckets, and a MILP gives each group of each degree a number of samples of each bucket, minimising the longest
group's time.
"""

from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences import GroupCosts
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.full_ranks import filled
from meshwright.planner.sequences.split import lockstep_s, placed

BUCKETS = 16


def megatron_core_s(costs: GroupCosts, batch: Batch) -> float:
    """Give the seconds of Megatron-Core's greedy split."""
    total_s = 0.0
    least = (batch.tokens <= costs.most_tokens[:, np.newaxis]).argmax(axis=0)
    order = np.argsort(-batch.tokens, kind="stable")
    left = order.tolist()
    while left:
        chosen, degree, later = _one_micro_batch(costs, batch, left, least)
        items = np.array([item for group in chosen for item in group])
        group = np.repeat(np.arange(len(chosen)), [len(group) for group in chosen])
        part = _part(batch, items)
        split = placed(costs, np.array(degree), group, np.zeros(len(degree), dtype=np.int64))
        split = filled(costs, part, split) or split
        total_s += lockstep_s(split, split.seconds(costs, part))
        left = later
    return total_s


def _one_micro_batch(
    costs: GroupCosts, batch: Batch, items: list[int], least: IntArray
) -> tuple[list[list[int]], list[int], list[int]]:
    chosen: list[list[int]] = []
    degree: list[int] = []
    seconds: list[float] = []
    tokens: list[int] = []
    later: list[int] = []
    used = 0
    for item in items:
        wanted, count = int(least[item]), int(batch.tokens[item])
        load_s, size = float(batch.load_s[wanted, item]), int(costs.degrees[wanted])
        if used + size <= costs.ranks:
            used += size
            chosen.append([item])
            degree.append(wanted)
            seconds.append(load_s)
            tokens.append(count)
            continue
        fits = [
            at
            for at in range(len(chosen))
            if degree[at] >= wanted
            and tokens[at] + count <= costs.most_tokens[degree[at]]
            and seconds[at] + batch.load_s[degree[at], item] <= max(seconds)
        ]
        if not fits:
            later.append(item)
            continue
        at = min(fits, key=lambda at: seconds[at])
        chosen[at].append(item)
        seconds[at] += float(batch.load_s[degree[at], item])
        tokens[at] += count
    return chosen, degree, later


def _part(batch: Batch, items: IntArray) -> Batch:
    return Batch(
        tokens=batch.tokens[items],
        work_s=batch.work_s[items],
        load_s=batch.load_s[:, items],
        alone_s=batch.alone_s[:, items],
    )


def flexsp_s(costs: GroupCosts, batch: Batch, *, limit_s: float) -> float:
    """Give the seconds of FlexSP's split, of the best of a few numbers of micro-batches; inf where none is found."""
    order = np.argsort(-batch.tokens, kind="stable")
    batch = _part(batch, order)
    fewest = -(-int(batch.tokens.sum()) // int((costs.ranks // costs.degrees * costs.most_tokens).max()))
    best_s = float("inf")
    for micro_batches in (fewest, fewest + 1):
        ends = np.cumsum(batch.tokens)
        edges = [0, *np.searchsorted(ends, ends[-1] * np.arange(1, micro_batches) / micro_batches), len(batch)]
        parts = [batch.part(slice(int(a), int(b))) for a, b in pairwise(edges) if b > a]
        each_s = [_flexsp_micro_batch_s(costs, part, limit_s / (2 * micro_batches)) for part in parts]
        best_s = min(best_s, sum(each_s))
    return best_s


def _flexsp_micro_batch_s(costs: GroupCosts, batch: Batch, limit_s: float) -> float:
    """Solve one micro-batch's MILP; samples count as the longest of their bucket, as memory must hold."""
    longest, counts = _buckets(batch.tokens)
    at = np.array([int(np.flatnonzero(batch.tokens == length)[0]) for length in longest])
    groups = np.concatenate([np.full(costs.ranks // int(d), k) for k, d in enumerate(costs.degrees)])
    many, buckets = len(groups), len(longest)
    load_s = batch.load_s[:, at]
    size = many * buckets + many + 1
    rows = lil_matrix((buckets + 2 * many + 1, size))
    for group, degree in enumerate(groups):
        for bucket in range(buckets):
            rows[bucket, group * buckets + bucket] = 1.0
            rows[buckets + group, group * buckets + bucket] = load_s[degree, bucket]
            rows[buckets + many + group, group * buckets + bucket] = float(longest[bucket])
        used = many * buckets + group
        rows[buckets + group, used] = float(costs.fixed_s[degree])
        rows[buckets + group, size - 1] = -1.0
        rows[buckets + many + group, used] = -float(costs.most_tokens[degree])
        rows[buckets + 2 * many, used] = float(costs.degrees[degree])
    low = np.concatenate([counts, np.full(2 * many + 1, -np.inf)])
    high = np.concatenate([counts, np.zeros(2 * many), [costs.ranks]])
    upper = np.concatenate([np.tile(counts, many), np.ones(many), [np.inf]])
    answer = milp(
        np.eye(1, size, size - 1).ravel(),
        constraints=LinearConstraint(rows.tocsr(), low, high),
        bounds=Bounds(0.0, upper),
        integrality=np.concatenate([np.ones(size - 1), [0.0]]),
        options={"time_limit": limit_s},
    )
    return float("inf") if answer.x is None else _real_s(costs, batch, longest, groups, answer.x)


def _buckets(tokens: IntArray) -> tuple[IntArray, FloatArray]:
    """Give the longest of each of 16 buckets of about equally many samples, and their numbers."""
    ascending = np.sort(tokens)
    edges = np.unique(np.linspace(0, len(tokens), min(BUCKETS, len(tokens)) + 1).astype(int)[1:] - 1)
    longest = np.unique(ascending[edges])
    counts = np.diff(np.concatenate([[0], np.searchsorted(ascending, longest, side="right")])).astype(float)
    return longest, counts


def _real_s(costs: GroupCosts, batch: Batch, longest: IntArray, groups: IntArray, answer: FloatArray) -> float:
    """Give the longest group's time with the samples' own lengths, dealt out of each bucket from the longest on."""
    taken = np.round(answer[: len(groups) * len(longest)]).astype(int).reshape(len(groups), len(longest))
    bucket = np.searchsorted(longest, batch.tokens)
    group = np.empty(len(batch), dtype=np.int64)
    for each in range(len(longest)):
        group[np.flatnonzero(bucket == each)] = np.repeat(np.arange(len(groups)), taken[:, each])
    used, numbered = np.unique(group, return_inverse=True)
    return float(costs.sums_s(groups[used], numbered, batch.work_s, batch.tokens).max())
