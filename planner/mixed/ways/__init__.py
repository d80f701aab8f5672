"""Ways of training that change the mathematics, each used only where it is allowed, with what it trades."""

from meshwright.planner.mixed.ways.allowed import Allowed, Permission, permissions
from meshwright.planner.mixed.ways.exchanges import exchange_ways
from meshwright.planner.mixed.ways.way import Way

__all__ = ["Allowed", "Permission", "Way", "exchange_ways", "permissions"]
