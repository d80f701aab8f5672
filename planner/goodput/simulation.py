"""Training with failures, drawn at random: how much of the time is of use in each of many runs.

A run trains for so many seconds. Failures come as a Poisson process, near copies help after some of them, by chance;
each throws the run back to the last copy that was good by then, and costs a restart, which may fail too. Between
failures all goes by the clock, so that each piece of it is one step of the simulation, for all runs at once.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray
from meshwright.planner.goodput.closed_form import Interval
from meshwright.planner.goodput.levels import Scheme

NONE = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The goodput of many runs: the mean, its standard error, and from where to where nine of ten runs are."""

    mean: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """How training goes without failures: `work_s` of steps, near copies after each, storage's after `copies` of them.

    All in seconds; late_s: when a near copy, and one on storage, is good after it was made.
    """

    work_s: float
    near_blocked_s: float
    storage_blocked_s: float
    copies: int
    late_s: tuple[float, float]

    @property
    def piece_s(self) -> float:
        return self.work_s + self.near_blocked_s

    @property
    def round_s(self) -> float:
        return self.copies * self.piece_s + self.storage_blocked_s

    def when(self, pieces: FloatArray) -> FloatArray:
        """Give the time at which so many pieces are done and copied, from the begin of a round."""
        rounds = np.floor_divide(pieces, self.copies)
        return np.asarray(rounds * self.round_s + (pieces - rounds * self.copies) * self.piece_s)

    def pieces(self, time_s: FloatArray) -> FloatArray:
        """Give how many pieces are done and copied by a time, from the begin of a round."""
        rounds = np.floor_divide(time_s, self.round_s)
        inside = np.floor_divide(time_s - rounds * self.round_s, self.piece_s)
        return np.asarray(rounds * self.copies + np.minimum(inside, self.copies))

    def rounds(self, time_s: FloatArray) -> FloatArray:
        """Give how many rounds, with the copy on storage, are done by a time."""
        return np.asarray(np.maximum(np.floor_divide(time_s, self.round_s), 0.0))

    def work(self, time_s: FloatArray) -> FloatArray:
        """Give the seconds of work that are done by a time."""
        pieces = self.pieces(time_s)
        more_s = np.clip(time_s - self.when(pieces), 0.0, self.work_s)
        at_end = (pieces > 0) & (pieces % self.copies == 0) & (time_s < self.when(pieces))
        return np.asarray(pieces * self.work_s + np.where(at_end, 0.0, more_s))


def simulated(scheme: Scheme, interval: Interval, step_s: float, *, duration_s: float, runs: int, seed: int) -> Spread:
    """Simulate so many runs of so many seconds, the same ones for the same seed."""
    near = scheme.near
    clock = _Clock(
        work_s=interval.steps * step_s,
        near_blocked_s=0.0 if near is None else near.blocked_s,
        storage_blocked_s=scheme.storage.blocked_s,
        copies=interval.copies,
        late_s=(0.0 if near is None else near.late_s, scheme.storage.late_s),
    )
    useful = _useful_s(scheme, clock, duration_s, runs, np.random.default_rng(seed)) / duration_s
    low, high = np.quantile(useful, (0.05, 0.95))
    error = float(useful.std(ddof=1) / np.sqrt(runs)) if runs > 1 else 0.0
    return Spread(mean=float(useful.mean()), error=error, low=float(low), high=float(high))


def _useful_s(scheme: Scheme, clock: _Clock, duration_s: float, runs: int, random: np.random.Generator) -> FloatArray:
    """Give the seconds of work that each run has done in the end."""
    near_rate = 0.0 if scheme.near is None else scheme.near.per_s
    rate = near_rate + scheme.storage.per_s
    near_restart_s = scheme.storage.restart_s if scheme.near is None else scheme.near.restart_s
    now_s, restart_s = np.zeros(runs), np.zeros(runs)
    kept, stored = np.zeros(runs), np.zeros(runs)  # pieces of the last copies that are good, near and on storage
    useful_s = np.full(runs, -1.0)
    while (useful_s < 0).any():
        until_s = random.exponential(1 / rate, runs) if rate else np.full(runs, np.inf)
        helped: BoolArray = random.random(runs) * rate < near_rate
        left_s = np.minimum(until_s, duration_s - now_s)
        ran_s = np.maximum(left_s - restart_s, 0.0)
        # As if it had run since the round began in which its state was made.
        began = stored_round(kept, clock.copies)
        time_s = clock.when(kept - began) + ran_s
        ended = (now_s + until_s >= duration_s) & (useful_s < 0)
        useful_s = np.where(ended, began * clock.work_s + clock.work(time_s), useful_s)
        good = began + clock.pieces(np.maximum(time_s - clock.late_s[0], 0.0))
        rounds = clock.rounds(time_s - clock.late_s[1])
        stored = np.maximum(stored, np.where(ran_s > 0, began + rounds * clock.copies, stored))
        kept = np.where(helped, np.maximum(np.maximum(kept, good), stored), stored)
        now_s = now_s + until_s
        restart_s = np.where(helped, near_restart_s, scheme.storage.restart_s)
    return useful_s


def stored_round(pieces: FloatArray, copies: int) -> FloatArray:
    """Give the first piece of the round that a piece is of."""
    return np.asarray(np.floor_divide(pieces, copies) * copies)
