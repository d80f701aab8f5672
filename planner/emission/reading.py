"""What a launch configuration says, read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beside the file; None where the file has to say it.

    file: its name, for errors. devices: that it runs on. model: what it trains.
    """

    file: str
    devices: int
    model: ModelEntry | None = None
    global_batch: int | None = None
    sequence_length: int | None = None
    micro_batch: int | None = None
    recompute: Recompute | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file says.

    global_batch, sequence_length: None where it doesn't. recomputed: the modules that selective recomputation is of,
    None where they are the software's own choice. unmodelled: settings that change a step and that plans don't hold.
    """

    layout: Layout
    model: ModelEntry
    global_batch: int | None
    sequence_length: int | None
    precision: Precision
    recomputed: tuple[RecomputedModule, ...] | None = None
    unmodelled: tuple[str, ...] = field(default=())


def needed(value: int | None, what: str, *, file: str, option: str = "") -> int:
    """Give a number that must be known. Raises InputError where it isn't, with the option that says it."""
    if value is None:
        raise InputError(f"doesn't tell {what}", file=file, hint=f"say it with {option}" if option else "")
    return value


def replicas(devices: int, degrees: Mapping[str, int], *, file: str) -> int:
    """Give the data-parallel replicas that devices make. Raises InputError where the degrees don't divide them."""
    each = 1
    for degree in degrees.values():
        each *= degree
    if each < 1 or devices % each:
        product = " x ".join(f"{name} {degree}" for name, degree in degrees.items() if degree != 1)
        raise InputError(f"{product} is {each} devices a replica, which don't divide {devices}", file=file)
    return devices // each


def without_even_split(layout: dict[str, Any], sizes: tuple[int, ...], layers: int) -> dict[str, Any]:
    """Add the layers of each chunk to fields of a layout, but where they are what an even cut gives."""
    return layout if sizes in ((), chunk_sizes(layers, len(sizes))) else {**layout, "split": sizes}
