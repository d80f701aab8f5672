"""A way of training that isn't that of one device, with what it sends and what it trades."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.costmodels.island_links import Exchange
from meshwright.planner.mixed.ways.allowed import Allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to keep islands' replicas near one another.

    exchange: of a step, in the mean. state_bytes: what it keeps beside the usual states for each parameter, once an
    island. settings: its numbers by name. trades: what is given up, a sentence. source: where it is from.
    """

    name: Allowed
    exchange: Exchange
    state_bytes: float
    settings: Mapping[str, float]
    trades: str
    source: str
