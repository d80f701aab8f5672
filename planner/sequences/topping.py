"""Fill up a micro-batch, as long as it is, with sequences that a later one would have."""

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.split import Split, placed

# Sequences that find no room, one after another, before no more are tried.
MOST_FAILURES = 64


def topped_up(costs: GroupCosts, own: Batch, split: Split, others: Batch) -> tuple[Split, IntArray]:
    """Give a split of one micro-batch with some of `others` in its groups too, none longer than its longest was.

    Each, from the first on, goes to the smallest group that has time and memory for it, of equal ones to the longest;
    ranks without a group are groups of the least degree. The new split's sequences are `own`, then those of `others`
    whose numbers are given with it.
    """
    idle = (costs.ranks - int(costs.degrees[split.degree].sum())) // int(costs.degrees[0])
    degree = np.concatenate([split.degree, np.zeros(idle, dtype=np.int64)])
    work_s = np.bincount(split.group, own.work_s, len(degree)).astype(np.float64)
    tokens = np.bincount(split.group, own.tokens, len(degree)).astype(np.float64)
    group_s = costs.group_s(degree, work_s, tokens)
    limit_s = float(group_s[: len(split.degree)].max())
    most = costs.most_tokens[degree]
    taken, places, failures = [], [], 0
    for number, (count, attention_s) in enumerate(zip(others.tokens.tolist(), others.work_s.tolist(), strict=True)):
        if failures > MOST_FAILURES:
            break
        room = np.flatnonzero((tokens + count <= most) & (group_s < limit_s))
        new_s = costs.group_s(degree[room], work_s[room] + attention_s, tokens[room] + count)
        fits = new_s <= limit_s
        if not fits.any():
            failures += 1
            continue
        room, new_s = room[fits], new_s[fits]
        best = int(np.lexsort((-new_s, degree[room]))[0])
        place = int(room[best])
        work_s[place] += attention_s
        tokens[place] += count
        group_s[place] = new_s[best]
        taken.append(number)
        places.append(place)
    group = np.concatenate([split.group, np.array(places, dtype=np.int64)])
    used, group = np.unique(group, return_inverse=True)
    degree = degree[used]
    return placed(costs, degree, group, np.zeros(len(degree), dtype=np.int64)), np.array(taken, dtype=np.int64)
