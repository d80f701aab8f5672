"""All splits whose bound is below a limit, stage by stage.

A prefix is a choice for the stages 0..k; its bound is the greatest cost of its stages and of the least that those
behind it can come to (dynamic_program.py), so that what is dropped above the limit holds nothing below it. Where more
prefixes are left than `most`, the first in some order are kept, and the least bound of what was dropped is told.

Many splits share a bound, that of one stage which can't take less. A prefix's unrest, the sum of its stages' costs
squared and of the least that those behind it can add, tells them apart: the law's other chains are the longer the more
stages differ. Orders are by bound, and by unrest where that is equal; or by unrest alone, which finds good splits where
bounds are far off, but leaves low ones behind.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.layout.objective import rounded
from meshwright.planner.stages.dynamic_program import least_maxima, least_sums_behind


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitsBelow:
    """Splits, each the starts and the options of its stages, [splits, stages], the smallest first one first.

    left_s: the least bound of those below the limit that aren't among them; infinite where there are none.
    """

    starts: IntArray
    options: IntArray
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What each stage costs at least.

    costs_s: by start and option, [stages, layers, options]; infinite where it isn't open.
    sizes: layers of each option, ascending, [options].
    least_s: the least maximum of each stage and those behind it, [stages + 1, layers + 1].
    unrest: the costs squared. least_unrest: the least sum of each stage and those behind it, [stages + 1, layers + 1].
    """

    costs_s: FloatArray
    sizes: IntArray
    least_s: FloatArray
    unrest: FloatArray
    least_unrest: FloatArray

    @classmethod
    def of(cls, costs_s: FloatArray, sizes: IntArray) -> Self:
        """Work out what follows from the costs."""
        unrest = costs_s**2
        return cls(
            costs_s=costs_s,
            sizes=sizes,
            least_s=least_maxima(costs_s, sizes),
            unrest=unrest,
            least_unrest=least_sums_behind(unrest, sizes),
        )


def splits_below(costs: Costs, *, limit_s: float, most: int, by_bound: bool = True) -> SplitsBelow:
    """Give the splits whose greatest cost is below the limit.

    Args:
        costs: what each stage costs.
        limit_s: the limit.
        most: prefixes to keep.
        by_bound: keep those of the least bounds; else those of the least unrest.

    """
    ends, bounds_s, unrest, left_s = np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1), np.inf
    starts, options = (np.zeros((1, 0), dtype=np.int64) for _ in range(2))
    layers = costs.costs_s.shape[1]
    for stage, own_s in enumerate(costs.costs_s):
        reach = np.minimum(ends[:, np.newaxis] + costs.sizes, layers)
        after_s = np.maximum(np.maximum(bounds_s[:, np.newaxis], own_s[ends]), costs.least_s[stage + 1][reach])
        prefix, option = np.nonzero(after_s < limit_s)
        found_s = after_s[prefix, option]
        unrest = unrest[prefix] + costs.unrest[stage, ends[prefix], option]
        if len(found_s) > most:
            total = rounded(unrest + costs.least_unrest[stage + 1][reach[prefix, option]])
            order = np.lexsort([total, rounded(found_s)] if by_bound else [total])
            left_s = min(left_s, float(found_s[order[most:]].min()))
            kept = np.sort(order[:most])
            prefix, option, found_s, unrest = prefix[kept], option[kept], found_s[kept], unrest[kept]
        starts = np.column_stack([starts[prefix], ends[prefix]])
        options = np.column_stack([options[prefix], option])
        ends, bounds_s = reach[prefix, option], found_s
    return SplitsBelow(starts=starts, options=options, left_s=left_s)
