"""The schema of an overlay: calibrated figures that are laid over those of devices, clusters and stacks.

    version: 1
    source: meshwright calibrate runs.yaml --device h100-sxm-80gb
    devices:
      h100-sxm-80gb:
        calibration: {matmul_ceiling: 0.71, kernel_latency: 4 us}
        residuals: [{precision: 16-bit, model: dense, spread: 0.031, rows: 12, counts_as: 10, devices: 64}]
    clusters:
      dgx-h100: {tiers: {nvlink: {efficiency: 0.9, startup: 8 us}}}
    stacks:
      megatron-core: {layer_launch: 0.5 ms}

Only figures that are measured can be overlaid, not what a brochure prints, nor a switch. What is left out stays as it
is in the catalog; residuals replace all that a device had. Values have the units and bounds of the entries that they
are laid over.
"""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from meshwright.catalog.cluster_entry import TierEntry
from meshwright.catalog.device_entry import CalibrationEntry
from meshwright.catalog.entry import Entry, Name, Source, field_error
from meshwright.catalog.names import canonical_name
from meshwright.catalog.residuals_entry import ResidualsEntry
from meshwright.catalog.stack_entry import StackEntry

CALIBRATION_FIELDS = tuple(name for name in CalibrationEntry.model_fields if name != "source")
TIER_FIELDS = ("latency", "startup", "efficiency", "in_network_reduction")
STACK_FIELDS = (
    "attention_share",
    "gather_efficiency",
    "layer_launch",
    "collective_launch",
    "expert_launch",
    "step_overhead",
    "allocator_slack",
)


class Figures(Entry):
    """Base of the figures of one entry, all optional; those that aren't given are None, and aren't written."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, document: Any) -> Any:  # noqa: ANN401 - what a file holds
        for key in document if isinstance(document, dict) else ():
            if document[key] is None:
                raise field_error(str(key), "has no value", hint="leave it out to keep the catalog's")
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=3, cutoff=0.5)
                hint = f"did you mean {', '.join(near)}?" if near else f"these can be: {', '.join(cls.model_fields)}"
                raise field_error(str(key), "is not a figure that can be overlaid", hint=hint)
        return document

    @model_serializer(mode="wrap")
    def _written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in written(self).items() if value is not None}

    @property
    def given(self) -> Mapping[str, float]:
        """The figures that are given, in base units."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in pairs if value is not None}


def _figures_of(schema: type[Entry], fields: tuple[str, ...], *, name: str) -> type[Figures]:
    """Make the schema of some figures of an entry: each as it is there, but optional."""
    optional: dict[str, Any] = {}
    for field in fields:
        info = schema.model_fields[field]
        kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        optional[field] = (kind | None, None)
    return create_model(name, __base__=Figures, __module__=__name__, **optional)


if TYPE_CHECKING:  # what is made when this module runs is no type to a checker
    CalibrationFigures: TypeAlias = Figures
    TierFigures: TypeAlias = Figures
    StackFigures: TypeAlias = Figures
else:
    CalibrationFigures = _figures_of(CalibrationEntry, CALIBRATION_FIELDS, name="CalibrationFigures")
    TierFigures = _figures_of(TierEntry, TIER_FIELDS, name="TierFigures")
    StackFigures = _figures_of(StackEntry, STACK_FIELDS, name="StackFigures")


class DeviceOverlay(Entry):
    """What is laid over one device: figures, and how far off the steps were that those were found without."""

    calibration: CalibrationFigures
    residuals: tuple[ResidualsEntry, ...] = ()

    @model_validator(mode="after")
    def _each_class_once(self) -> Self:
        classes = [(each.precision, each.model) for each in self.residuals]
        for index, each in enumerate(classes):
            if each in classes[:index]:
                raise field_error(f"residuals.{index}", f"{each[0]} steps of {each[1]} models are given twice")
        return self

    @model_serializer(mode="wrap")
    def _written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in written(self).items() if name != "residuals" or value}


class ClusterOverlay(Entry):
    """What is laid over the tiers of one cluster, by their names."""

    tiers: dict[Name, TierFigures]


def _version(version: Any) -> Any:  # noqa: ANN401 - what a file holds
    if type(version) is not int:  # true and 1.0 equal 1
        raise ValueError("must be a whole number")
    return version


class OverlayEntry(Entry):
    """Figures of devices, clusters and stacks, by their names; `source` says where they were measured."""

    version: Annotated[Literal[1], BeforeValidator(_version)]
    source: Source
    devices: dict[Name, DeviceOverlay] = Field(default_factory=dict)
    clusters: dict[Name, ClusterOverlay] = Field(default_factory=dict)
    stacks: dict[Name, StackFigures] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for kind in ("devices", "clusters", "stacks"):
            named: dict[str, str] = {}
            for name in getattr(self, kind):
                twin = named.setdefault(canonical_name(name), name)
                if twin != name:
                    raise field_error(f"{kind}.{name}", f"is the same name as {twin}")
        return self
