"""Placements in files: ours, versioned, and those of engines."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from meshwright.catalog.document import parse_json, read_document, read_text, validate
from meshwright.catalog.entry import Count, Entry, Natural, field_error
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.array_file import read_npz
from meshwright.planner.experts.checker import faults
from meshwright.planner.experts.formats import eplb, megatron, sglang, vllm, vllm_ascend
from meshwright.planner.experts.placement import EMPTY, Dispatch, Objective, Placement, Status

FORMAT_VERSION = 1
# Far beyond any model: slots of all its layers.
MOST_LAYER_SLOTS = 2**24
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ByLayer(Entry):
    """A figure of each layer, and their average."""

    overall: Figure
    layers: list[Figure]


class PlacementFile(Entry):
    """What `placement.json` holds.

    layers: which of the model's layers each row of `placement` is; model_layers: how many that has.
    The others as of Placement.
    """

    version: Count = FORMAT_VERSION
    meshwright: str
    layers: list[Natural]
    model_layers: Count
    experts: Count
    devices: Count
    nodes: Count
    slots: Count
    objective: Objective
    dispatch: Dispatch
    placement: list[list[Annotated[int, Field(ge=EMPTY)]]]
    max_over_mean: ByLayer
    lower_bound: ByLayer
    gap: ByLayer
    filled: list[list[Natural]] | None = None
    filled_over_mean: ByLayer | None = None
    cross_device: Figure | None
    cross_node: Figure | None
    cross_bound: Figure | None
    moved: Natural | None
    method: str
    stopped: bool = False
    status: Status

    @property
    def without_empty(self) -> IntArray:
        """The experts [layers, slots] for engines that leave no slot empty."""
        return np.array(self.placement if self.filled is None else self.filled, np.int64)

    @property
    def served_over_mean(self) -> float:
        """The largest device load over the mean that engines have, averaged over the layers."""
        return (self.max_over_mean if self.filled_over_mean is None else self.filled_over_mean).overall

    @model_validator(mode="after")
    def _whole(self) -> "PlacementFile":
        for field, fault in self._faults():
            raise field_error(field, fault)
        return self

    def _faults(self) -> Iterator[tuple[str, str]]:
        """Give what is wrong, a field and a sentence each."""
        if any(len(row) != self.slots for row in self.placement) or len(self.layers) != len(self.placement):
            yield "placement", f"must be {self.slots} slots in each of {len(self.layers)} layers"
        if not self.placement:
            yield "placement", "must have a layer"
        if self.slots % self.devices or self.devices % self.nodes:
            yield "slots", f"{self.nodes} nodes, {self.devices} devices and {self.slots} slots don't divide"
        if self.experts > self.slots:
            yield "experts", f"{self.experts} are more than the {self.slots} slots"
        if self.model_layers * self.slots > MOST_LAYER_SLOTS:
            yield "model_layers", f"{self.model_layers} layers of {self.slots} slots are more than {MOST_LAYER_SLOTS}"
        if len(set(self.layers)) < len(self.layers):
            yield "layers", "must each be another layer of the model"
        if self.layers and max(self.layers) >= self.model_layers:
            yield "layers", f"layer {max(self.layers)} isn't of the model's {self.model_layers}, counted from 0"
        for fault in faults(self.placement, experts=self.experts, devices=self.devices, slots=self.slots):
            yield "placement", fault
        if self.filled is not None and not _fills(self.filled, self.placement, self.experts):
            yield "filled", "must have an expert in each slot, and each expert in one"


def _fills(filled: Sequence[Sequence[int]], placement: Sequence[Sequence[int]], experts: int) -> bool:
    """Say whether each layer has its experts, all of them in some slot, and none that isn't there."""
    return len(filled) == len(placement) and all(
        len(row) == len(other) and set(row) == set(range(experts)) for row, other in zip(filled, placement, strict=True)
    )


def placement_text(placement: Placement, *, at: tuple[int, ...], model_layers: int) -> str:
    """Give `placement.json`. at: which of the model's layers each layer is."""
    experts = int(placement.placement.max()) + 1
    document = {
        "version": FORMAT_VERSION,
        "meshwright": version("meshwright"),
        "layers": list(at),
        "model_layers": model_layers,
        "experts": experts,
        **placement.document(),
    }
    return json.dumps(document) + "\n"


def load_placement_file(path: str | Path) -> PlacementFile:
    """Read `placement.json`. Raises InputError where it isn't one, or is of a newer format."""
    file = str(path)
    document = read_document(Path(path))
    if isinstance(document, dict) and ("layout" in document or "mixed" in document):
        raise InputError("is a plan, not a placement of experts", file=file, hint="`meshwright experts` makes one")
    if not isinstance(document, dict) or "version" not in document:
        raise InputError(
            "is not a placement: it has no version", file=file, hint="`meshwright experts -o FOLDER` writes one"
        )
    found = document["version"]
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise InputError(
            f"was made by a newer meshwright: its format is version {found}, this one reads {FORMAT_VERSION}",
            file=file,
            path="version",
            hint="upgrade meshwright, or place the experts again with this one",
        )
    return validate(PlacementFile, document, file=file)


def read_placement(path: str | Path) -> IntArray:
    """Give the placement [layers, slots] of a file of ours or of an engine, known by what it holds.

    Raises InputError where it is none of them.
    """
    file = str(path)
    if Path(path).suffix == ".npz":
        arrays = read_npz(Path(path))
        if "phy2log" not in arrays:
            raise InputError("has no phy2log", file=file)
        return eplb.read(arrays, file=file)
    document = parse_json(read_text(Path(path)), file=file)
    if isinstance(document, dict) and "version" in document:
        return np.array(load_placement_file(path).placement, np.int64)
    try:
        return _experts(_rows(document))
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        raise InputError(
            "is no placement that is known: ours, EPLB's maps, SGLang's, vLLM's, vllm-ascend's or ranks by layer",
            file=file,
        ) from None


def _rows(document: Any) -> object:  # noqa: ANN401 - whatever the file holds
    if isinstance(document, dict):
        return sglang.read(document) if sglang.KEY in document else vllm_ascend.read(document)
    return megatron.read(document) if isinstance(document[0][0], list) else vllm.read(document)


def _experts(rows: object) -> IntArray:
    placed = np.array(rows)
    if placed.ndim != 2 or placed.dtype.kind != "i" or placed.min() < EMPTY:
        raise ValueError(placed.dtype)
    return placed.astype(np.int64)
