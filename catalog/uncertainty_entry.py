"""The schema of `catalog/uncertainty.yaml`: how far predictions were from measurements that no constant had seen."""

from typing import Annotated

from pydantic import Field

from meshwright.catalog.entry import Count, Entry, Name, Source
from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind

Factor = Annotated[float, Field(ge=1, le=100)]


class SpreadEntry(Entry):
    """Half of an interval of one quantity, of predictions alike in what is told here; None is any.

    precision: class of formats. inputs: what is known of them. model: whether it is a mixture of experts.
    factor: the measured value is within [predicted / factor, predicted x factor] as often as `level` says.
    rows, sources: how many measurements it comes from.
    """

    quantity: Name
    precision: PrecisionClass | None = None
    inputs: Name | None = None
    model: ModelKind | None = None
    factor: Factor
    rows: Count
    sources: Count


class UncertaintyEntry(Entry):
    """All spreads.

    level: how often an interval holds the measured value.
    unmeasured: the factor where nothing measured covers the device's family, from predicting each family with the
    constants of the others.
    covered: the most devices of a measured step, by device family and precision class.
    read: of the most devices that a reading of memory was taken at once, by reading, device family and precision class.
    practised: what of layouts its measured steps had, beyond what all families' have, by device family.
    """

    source: Source
    level: Annotated[float, Field(gt=0.5, lt=1)]
    spreads: Annotated[tuple[SpreadEntry, ...], Field(min_length=1)]
    unmeasured: Factor
    covered: dict[Name, dict[PrecisionClass, Count]]
    read: dict[Name, dict[Name, dict[PrecisionClass, Count]]] = Field(default_factory=dict)
    practised: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
