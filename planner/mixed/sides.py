"""Chains with the laws of their layouts: the sides between which the search deals out a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.planner.mixed.chain_cut import ChainCut
from meshwright.planner.mixed.laws import Laws, Rest
from meshwright.planner.mixed.shapes import Chain
from meshwright.planner.mixed.solution import Party

# How much slower than the fastest the layouts of an island are that are looked at, at least and at most.
NARROWEST, WIDEST = 0.04, 0.3
BEFORE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A chain's laws, and what they are of: layouts of an island alone, or cuts."""

    chain: Chain
    job: Job
    laws: Laws
    layouts: LayoutTable | None
    cuts: tuple[ChainCut, ...]

    @property
    def sizes(self) -> IntArray:
        """Sequences of one micro-batch of one replica, [layouts]."""
        if self.layouts is not None:
            return self.layouts.micro_batch
        return np.array([cut.layouts[0].micro_batch for cut in self.cuts], dtype=np.int64)

    def party(self, row: int, *, sequences: int, busiest: int) -> Party:
        """Give one of the layouts with its share, of which the busiest replica has so much."""
        laws, size = self.laws, int(self.sizes[row])
        exposed_s, took_s = float(laws.exposed_s[row]), laws.takes_s(row, busiest, size)
        if self.layouts is None:
            cut, job, tail_s = self.cuts[row], self.job, 0.0
            own_s, layouts = took_s - exposed_s, self.cuts[row].layouts
        else:
            cut, layout = None, self.layouts.row(row)
            full = max(busiest // size, 1) if np.isfinite(laws.tails_s[:, row]).any() else -(-busiest // size)
            tail_s = max(took_s - float(laws.fixed_s[row] + laws.each_s[row] * full), 0.0)
            job = replace(self.job, global_batch=full * layout.data_parallel * size)
            own_s = float(predict_time(job, LayoutTable.of([layout])).step_time_s[0]) + tail_s
            layouts = (layout,)
        return Party(
            chain=self.chain,
            layouts=layouts,
            sequences=sequences,
            own_s=own_s,
            tail_s=tail_s,
            exposed_s=exposed_s,
            job=job,
            cut=cut,
        )


def windows_needed(sides: Sequence[Side], bar_s: float, *, batch: int) -> list[float]:
    """Give the windows outside of which no layout makes up the batch by the bar, as far as they go.

    That is with what the other sides have done just before it.
    """
    if not np.isfinite(bar_s):
        return [WIDEST] * len(sides)
    done = [side.laws.done(bar_s * (1 - BEFORE)) for side in sides]
    allowed = [
        bar_s / side.laws.share_s * max(1.0, side.laws.share / max(batch - sum(done) + own, 1)) - 1.0
        for side, own in zip(sides, done, strict=True)
    ]
    return [min(max(window * 1.02, NARROWEST), WIDEST) for window in allowed]


def most_done(laws: Laws, time_s: float) -> float:
    """Give how many sequences an island has done by a time at most, of all its layouts."""
    least_s = min(laws.share_s, laws.rest_s)
    return laws.share * min(time_s / least_s, 1.0) + max(time_s - least_s, 0.0) * laws.fastest


def chain_laws(cuts: Sequence[ChainCut], share: float, steps: Rest, fastest: float, exposed_s: FloatArray) -> Laws:
    """Give the laws of cuts: their step, and one more micro-batch of the busiest stage.

    steps: what configurations that weren't cut have done by a time at most.
    """
    busy = np.array([max(np.add(cut.forward_s, cut.backward_s)) for cut in cuts])
    totals = np.array([cut.total for cut in cuts], dtype=np.int64)
    return Laws(
        sequences=np.array([cut.layouts[0].data_parallel * cut.layouts[0].micro_batch for cut in cuts], dtype=np.int64),
        quantum=np.ones(len(cuts), dtype=np.int64),
        fixed_s=np.array([cut.step_time_s for cut in cuts]) - busy * totals + exposed_s,
        each_s=busy,
        exposed_s=exposed_s,
        tails_s=np.zeros((0, len(cuts))),
        share=share,
        rest_s=float(steps.time_s[0]) if len(steps.time_s) else np.inf,
        fastest=fastest,
        steps=steps,
    )
