"""What the configurations of a chain that trains replicas beside others can have done by a time, at most.

Of E seconds of the exchange between chains a configuration that takes T seconds for M micro-batches hides no more than
the passes of one micro-batch through all stages, T / k at most (chain_configs.py): with the bound T' of its steps it
takes f(M) = T' + max(E / L, E - T' / k) or more. f rises with M, so that it is worked out for some numbers m of
micro-batches alone: until f of the next one, no more than what lies below that is done.

Configurations that were left out take `below_s` or longer for the share: no more than share t / below_s by t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.island_links import Exchange
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.mixed.chain_configs import Configurations
from meshwright.planner.mixed.laws import Rest

# Numbers of micro-batches that are looked at, over those of the share.
POINTS = (*np.linspace(0.5, 1.5, 33).tolist(), 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The configurations of a chain in all ways of its messages, quickest bound of the share first.

    kind, row: which of them, [n]. share_s: the bound of the share with the exchange, [n]. counts, time_s, done: until
    when so many micro-batches aren't done, and the sequences of the next point's, less one of them, [n, points].
    left_out_per_s: sequences a second that those that were left out don't exceed. once_s: what of the exchange shows.
    """

    kind: IntArray
    row: IntArray
    share_s: FloatArray
    counts: FloatArray
    time_s: FloatArray
    done: FloatArray
    left_out_per_s: float
    once_s: float

    def __len__(self) -> int:
        return len(self.row)

    def rest(self, solved: Sequence[tuple[int, float]]) -> Rest:
        """Give what all of them have done by a time.

        solved: of the first of them the number of micro-batches that they were cut for, and what no cut takes less
        than; so many and more take that.
        """
        time_s = self.time_s.copy()
        for place, (total, least_s) in enumerate(solved):
            raised = np.maximum(time_s[place], least_s + self.once_s)
            time_s[place] = np.where(self.counts[place] >= total, raised, time_s[place])
        order = np.argsort(time_s, axis=None, kind="stable")
        done = np.maximum.accumulate(self.done.ravel()[order])
        return Rest(time_s=time_s.ravel()[order], done=done, per_s=self.left_out_per_s)


def choices(
    every: Sequence[Configurations], *, share: float, batch: int, exchange: Exchange, below_s: float
) -> Choices:
    """Give the choices of a chain.

    Args:
        every: configurations, with each way of messages.
        share: sequences at which they were compared.
        batch: sequences of the whole step.
        exchange: of gradients with other chains, once a step.
        below_s: those that take longer for the share were left out.

    """
    found = [_of(configs, kind, share=share, batch=batch, exchange=exchange) for kind, configs in enumerate(every)]
    kind, row, share_s, counts, time_s, done = (np.concatenate(values) for values in zip(*found, strict=True))
    order = np.lexsort([row, kind, share_s])
    return Choices(
        kind=kind[order],
        row=row[order],
        share_s=share_s[order],
        counts=counts[order],
        time_s=time_s[order],
        done=done[order],
        left_out_per_s=share / below_s,
        once_s=exchange.fixed_s + _whole_s(exchange) / len(every[0].members[0].job.model.layers),
    )


def _of(
    found: Configurations, kind: int, *, share: float, batch: int, exchange: Exchange
) -> tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Give kind, row, bound of the share, and points of one way of messages."""
    sequences = found.sequences
    usual = np.maximum(share / sequences, 1.0)
    most = np.ceil(batch / sequences)
    counts = np.clip(np.floor(usual[:, np.newaxis] * np.array(POINTS)), 1.0, most[:, np.newaxis])
    columns = [_with_exchange(found, column, exchange) for column in counts.T]
    time_s = np.column_stack([np.zeros(len(found)), *columns])
    before = np.column_stack([counts - 1.0, most])
    share_s = _with_exchange(found, usual, exchange)
    number = np.arange(len(found))
    counts = np.column_stack([np.zeros(len(found)), counts])
    return np.full(len(found), kind), number, share_s, counts, time_s, sequences[:, np.newaxis] * before


def _with_exchange(found: Configurations, total: FloatArray, exchange: Exchange) -> FloatArray:
    """Give f of above, [configurations]."""
    bound_s, whole_s = found.bound_s(total), _whole_s(exchange)
    shown_s = np.maximum(whole_s / len(found.members[0].job.model.layers), whole_s - bound_s / found.passes(total))
    return np.asarray(bound_s + exchange.fixed_s + shown_s)


def _whole_s(exchange: Exchange) -> float:
    return exchange.gradients_s + exchange.parameters_s
