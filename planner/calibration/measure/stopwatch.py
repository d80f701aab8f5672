"""Timing work that a device does behind the host's back.

Work is launched in batches long enough for the clock, so that the queue of the device stays full and what the host
needs to launch is hidden; the median batch, divided by its repeats, is the answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """A clock of a device.

    clock: seconds from any moment on; synchronize: waits until the device has done all that was launched.
    warm_up: launches before the first batch; batch_s: how long a batch should last, at most `most_repeats` launches.
    agree: gives the one time that all processes which launch together go by, as each has to launch equally often.
    """

    clock: Callable[[], float]
    synchronize: Callable[[], None]
    agree: Callable[[float], float] = float
    warm_up: int = 3
    batches: int = 7
    batch_s: float = 0.01
    most_repeats: int = 1000

    def time_s(self, launch: Callable[[], object]) -> float:
        """Give the seconds that one launch of some work takes."""
        self._batch_s(launch, self.warm_up)
        once_s = self.agree(self._batch_s(launch, 1))
        repeats = min(max(math.ceil(self.batch_s / max(once_s, 1e-9)), 1), self.most_repeats)
        return median(self._batch_s(launch, repeats) for _ in range(self.batches)) / repeats

    def _batch_s(self, launch: Callable[[], object], repeats: int) -> float:
        self.synchronize()
        start_s = self.clock()
        for _ in range(repeats):
            launch()
        self.synchronize()
        return self.clock() - start_s
