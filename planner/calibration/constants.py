"""The constants that can be fitted, each with the values that physics allows and how far it may be off.

A constant moves by a factor, exp(log_factor), that all its entries share: the devices of a family have the same matrix
units and kernels, so that what is learnt on one moves the others alike. What isn't listed here is never fitted.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from meshwright.catalog.cluster_entry import TierEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.overlay_entry import (
    CalibrationFigures,
    ClusterOverlay,
    DeviceOverlay,
    OverlayEntry,
    StackFigures,
    TierFigures,
)
from meshwright.catalog.stack_entry import StackEntry


class Section(StrEnum):
    """The part of an overlay that holds a constant."""

    DEVICES = "devices"
    CLUSTERS = "clusters"
    STACKS = "stacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What values a constant may take, in base units.

    spread: how far the catalog's value may be off before anything is measured, as the standard deviation of its
    logarithm: 0.15 is about a seventh either way.
    """

    low: float
    high: float
    spread: float


SHARE = Span(low=0.02, high=1.0, spread=0.3)
CALIBRATION_SPANS: Mapping[str, Span] = {
    "matmul_ceiling": SHARE,
    "narrow_matmul_ceiling": SHARE,
    "matmul_half_depth": Span(low=1.0, high=1e4, spread=0.7),
    "attention_forward": SHARE,
    "attention_backward": SHARE,
    "attention_deterministic": SHARE,
    "attention_half_length": Span(low=1.0, high=1e5, spread=0.7),
    "streaming": SHARE,
    "kernel_latency": Span(low=5e-7, high=1e-4, spread=0.5),
    "contention": Span(low=1.0, high=2.0, spread=0.1),
}
TIER_SPANS: Mapping[str, Span] = {
    "efficiency": SHARE,
    "in_network_reduction": SHARE,
    "startup": Span(low=1e-7, high=1e-3, spread=0.5),
    "latency": Span(low=5e-8, high=1e-3, spread=0.5),
}
STACK_SPANS: Mapping[str, Span] = {
    "layer_launch": Span(low=1e-6, high=2e-2, spread=0.5),
    "collective_launch": Span(low=1e-6, high=2e-2, spread=0.5),
    "expert_launch": Span(low=1e-6, high=2e-2, spread=0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One number to fit.

    owner: what it is a constant of: a device, a family of them, a cluster, a stack. tier: of a cluster, else empty.
    shipped: the catalog's values by the names of the entries that share the factor, in base units.
    """

    section: Section
    owner: str
    tier: str = ""
    figure: str
    shipped: Mapping[str, float] = field(hash=False)
    span: Span

    @property
    def name(self) -> str:
        """Its path, as in an overlay ("h100-sxm-80gb.matmul_ceiling", "dgx-h100.nvlink.startup")."""
        return ".".join(part for part in (self.owner, self.tier, self.figure) if part)

    @property
    def entries(self) -> frozenset[tuple[str, str]]:
        """What an overlay of it names, as (section, name)."""
        return frozenset((self.section, name) for name in self.shipped)

    @property
    def before(self) -> float:
        """The catalog's value, of the first entry."""
        return next(iter(self.shipped.values()))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and greatest log_factor that leaves each entry within the span; what is outside may stay there."""
        low = max(math.log(self.span.low / value) for value in self.shipped.values())
        high = min(math.log(self.span.high / value) for value in self.shipped.values())
        return min(low, 0.0), max(high, 0.0)


def device_constants(owner: str, devices: Sequence[DeviceEntry]) -> Iterator[Constant]:
    """Give the constants that devices share. A figure that one of them lacks isn't fitted."""
    for name, span in CALIBRATION_SPANS.items():
        values = {device.name: getattr(device.calibration, name) for device in devices}
        if None not in values.values():
            yield _constant(Section.DEVICES, owner, name, values, span)


def tier_constants(cluster: str, tier: TierEntry) -> Iterator[Constant]:
    """Give the constants of a tier of the cluster of that name."""
    for name, span in TIER_SPANS.items():
        value = getattr(tier, name)
        if value is not None:
            yield _constant(Section.CLUSTERS, cluster, name, {cluster: value}, span, tier=tier.name)


def stack_constants(stack: StackEntry) -> Iterator[Constant]:
    """Give the constants of a stack."""
    for name, span in STACK_SPANS.items():
        yield _constant(Section.STACKS, stack.name, name, {stack.name: getattr(stack, name)}, span)


def _constant(
    section: Section, owner: str, figure: str, values: Mapping[str, float], span: Span, *, tier: str = ""
) -> Constant:
    shipped = MappingProxyType({name: float(value) for name, value in values.items()})
    return Constant(section=section, owner=owner, tier=tier, figure=figure, shipped=shipped, span=span)


def figures_of(constants: Iterable[Constant], log_factors: Iterable[float]) -> dict[Section, dict[str, Any]]:
    """Give the values of constants moved by their factors, nested as an overlay nests them, in base units."""
    nested: dict[Section, dict[str, Any]] = {section: {} for section in Section}
    for constant, log_factor in zip(constants, log_factors, strict=True):
        for entry, value in constant.shipped.items():
            figures = nested[constant.section].setdefault(entry, {})
            if constant.tier:
                figures = figures.setdefault(constant.tier, {})
            figures[constant.figure] = value * math.exp(log_factor)
    return nested


def candidate(constants: Iterable[Constant], log_factors: Iterable[float]) -> OverlayEntry:
    """Give an overlay of constants moved by their factors, to predict with.

    Its figures aren't rounded to what an overlay's file may hold: a depth of 800.5 is one on the way.
    """
    nested = figures_of(constants, log_factors)
    return OverlayEntry.model_construct(
        version=1,
        source="a candidate of a fit",
        devices={
            name: DeviceOverlay.model_construct(calibration=CalibrationFigures.model_construct(**figures))
            for name, figures in nested[Section.DEVICES].items()
        },
        clusters={
            name: ClusterOverlay.model_construct(
                tiers={tier: TierFigures.model_construct(**figures) for tier, figures in tiers.items()}
            )
            for name, tiers in nested[Section.CLUSTERS].items()
        },
        stacks={name: StackFigures.model_construct(**figures) for name, figures in nested[Section.STACKS].items()},
    )
