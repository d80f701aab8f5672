"""How far predictions were from training steps that were left out of a calibration, as an overlay carries it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from meshwright.catalog.entry import Count, Entry
from meshwright.catalog.precision import PrecisionClass


class ModelKind(StrEnum):
    """Whether any layer of a model is a mixture of experts: predictions of those err apart."""

    DENSE = "dense"
    MIXTURE = "mixture"


class ResidualsEntry(Entry):
    """The left-out steps of one device, in one class of formats and of one kind of model.

    spread: root of the mean square of log(predicted / measured).
    rows: how many steps. counts_as: how many independent ones they count as, for those of one source err alike.
    devices: the most that one of the steps ran on.
    """

    precision: PrecisionClass
    model: ModelKind
    spread: Annotated[float, Field(ge=0, le=20)]
    rows: Count
    counts_as: Annotated[float, Field(gt=0, le=10**9)]
    devices: Count
