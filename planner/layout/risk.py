"""How much longer than predicted a step may take, by what its layout relies on."""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.planner.practices import beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """The upper end of the prediction interval over the prediction.

    usual: of layouts with the `practised` practices (practices.py) alone. new: of others; no less than that.
    """

    usual: float = 1.0
    new: float = 1.0
    practised: tuple[str, ...] = ()

    def factors(self, layouts: LayoutTable) -> FloatArray:
        """Give the factor of each layout, [layouts]."""
        return np.where(beyond(layouts, self.practised), self.new, self.usual)


NO_RISK = Risk()
