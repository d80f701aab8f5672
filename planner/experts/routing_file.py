"""Routing in files: `.npy`, `.npz`, JSON, CSV, and the `.pt` that SGLang's recorder dumps."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from meshwright.catalog.document import parse_json
from meshwright.catalog.errors import InputError
from meshwright.planner.experts.array_file import read_npy, read_npz, require_size
from meshwright.planner.experts.counting import counted
from meshwright.planner.experts.routing import Routing, routing_of
from meshwright.planner.experts.torch_file import read_torch

# Sums of rows, or of columns, that differ by less are those of the same tokens; by more, of others.
SAME, OTHER = 1e-6, 1e-3
# What is read as a number, to be refused by what it is: not 1_000, nor digits of other scripts.
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What a file holds.

    at: which of the model's layers each layer of the routing is. model_layers: how many the model has, as far as known.
    """

    routing: Routing
    at: tuple[int, ...]
    model_layers: int


def read_routing(
    path: str | Path, *, dense: frozenset[int] = frozenset(), layers: int | None = None, experts: int | None = None
) -> Measured:
    """Read measured routing.

    An array alone is loads [layers, experts] or [steps, layers, experts]. Named arrays are `loads` or SGLang's
    `logical_count`, and optionally `transitions`, `tokens` [layers, devices, experts], or a `trace`, from which loads
    and transitions are counted.
    dense: layers of the model without experts, which may be there without load, or left out. layers, experts: of the
    model, and of a layer, where known.

    Raises InputError where the file is of no such form, or too large, or its arrays don't fit one another or the model.
    """
    file = str(path)
    arrays = _named(_content(Path(path)), file=file)
    name = next((name for name in ("loads", "logical_count") if name in arrays), "loads")
    loads, transitions = arrays.get(name), arrays.get("transitions")
    if "trace" in arrays:
        from_trace = counted(np.asarray(arrays["trace"]), experts=experts, file=file)
        loads = from_trace[0] if loads is None else loads
        transitions = from_trace[1] if transitions is None else transitions
    if loads is None:
        raise InputError(
            "holds neither loads nor a trace", file=file, hint="name an array loads, logical_count or trace"
        )
    loads, at, held = _with_experts(loads, dense, layers, file=file, name=name)
    routing = routing_of(loads, transitions=transitions, tokens=arrays.get("tokens"), file=file, path=name)
    if experts is not None and routing.experts != experts:
        raise InputError(f"has {routing.experts} experts a layer, and the model {experts}", file=file, path=name)
    _require_upright(routing, file=file, name=name)
    return Measured(routing=routing, at=at, model_layers=held)


def _with_experts(
    loads: object, dense: frozenset[int], model_layers: int | None, *, file: str, name: str
) -> tuple[object, tuple[int, ...], int]:
    """Leave out the layers that the model says are dense, where the loads are of all layers and theirs are 0.

    Also give which of the model's layers each is, and how many it has.
    """
    try:
        array = np.asarray(loads)
    except ValueError:
        raise InputError("has rows of different lengths", file=file, path=name) from None
    layers = array.shape[-2] if array.ndim > 1 else 1
    if model_layers is not None and layers > model_layers:
        raise InputError(f"has {layers} layers, and the model {model_layers}", file=file, path=name)
    empty = {layer for layer in range(layers) if array.ndim > 1 and not np.any(array[..., layer, :])}
    if model_layers is not None and not empty and layers == model_layers - len(dense):
        return loads, tuple(layer for layer in range(model_layers) if layer not in dense), model_layers
    if not dense or not dense <= empty:
        return loads, tuple(range(layers)), layers
    at = tuple(layer for layer in range(layers) if layer not in dense)
    return array[..., list(at), :], at, layers


def _require_upright(routing: Routing, *, file: str, name: str) -> None:
    """Raise InputError where columns add up to the same as rows should: all layers get the same tokens."""

    def spread(axis: int) -> float:
        sums = routing.loads.sum(axis=axis)
        return float(np.ptp(sums) / sums.max())

    if min(routing.loads.shape) > 1 and spread(0) < SAME and spread(1) > OTHER:
        raise InputError(
            f"each of its {routing.experts} columns adds up to the same, as the layers should: it looks like "
            "[experts, layers]",
            file=file,
            path=name,
            hint="transpose it",
        )


def _content(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    require_size(path)
    readers = {".npy": read_npy, ".npz": read_npz, ".pt": read_torch, ".pth": read_torch, ".csv": _csv, ".json": _json}
    if path.suffix.lower() not in readers:
        raise InputError("is of no kind that is read", file=str(path), hint=f"known: {', '.join(readers)}")
    return readers[path.suffix.lower()](path)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", file=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", file=str(path)) from None


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    return parse_json(_text(path), file=str(path))


def _csv(path: Path) -> list[list[float]]:
    """Give the rows of numbers, after a line of names, none of which is a number, if there is one."""
    reader = csv.reader(StringIO(_text(path)))
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    if rows and not any(_NUMBER.fullmatch(cell.strip()) for cell in rows[0][1]) and len(rows[0][1]) > 1:
        del rows[0]
    for line, row in rows:
        for column, cell in enumerate(row, start=1):
            if not _NUMBER.fullmatch(cell.strip()):
                raise InputError(
                    f"{cell.strip()!r:.40} isn't a number",
                    file=str(path),
                    path=f"line {line}, column {column}",
                    hint="rows are numbers with commas between",
                )
    found = [[float(cell) for cell in row] for _, row in rows]
    if not found:
        raise InputError("has no rows of numbers", file=str(path))
    widths = {len(row) for row in found}
    if len(widths) > 1:
        raise InputError(f"has rows of {min(widths)} and of {max(widths)} numbers", file=str(path))
    return found


def _named(content: Any, *, file: str) -> Mapping[str, Any]:  # noqa: ANN401 - whatever the file holds
    if isinstance(content, dict):
        known = ("loads", "logical_count", "transitions", "trace", "tokens")
        # SGLang's dumps, and notes beside counts, hold single numbers too: only arrays are data.
        return {
            name: content[name]
            for name in known
            if isinstance(content.get(name), list) or np.ndim(content.get(name, 0))
        }
    if not isinstance(content, list | np.ndarray):
        raise InputError("must be an array, or arrays by name", file=file)
    return {"loads": content}
