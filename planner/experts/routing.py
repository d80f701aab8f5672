"""Measured routing: how many tokens each expert of each layer gets, and where from."""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray

# Products of larger numbers, or of as small ones, would leave the range of floats.
LARGEST_WEIGHT, LEAST_WEIGHT = 1e100, 1e-100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """What experts are placed by.

    loads: any non-negative weight [layers, experts], tokens for one.
    transitions: tokens that go from an expert of a layer to one of the next [layers - 1, experts, experts].
    tokens: tokens that each expert gets from each home device [layers, devices, experts].
    """

    loads: FloatArray
    transitions: FloatArray | None = None
    tokens: FloatArray | None = None

    @property
    def moves(self) -> FloatArray:
        """The transitions, of no tokens where none are known."""
        if self.transitions is not None:
            return self.transitions
        return np.zeros((max(self.layers - 1, 0), self.experts, self.experts))

    @property
    def layers(self) -> int:
        """Layers with experts."""
        return len(self.loads)

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return int(self.loads.shape[1])


def routing_of(
    loads: object, *, transitions: object = None, tokens: object = None, file: str = "", path: str = "loads"
) -> Routing:
    """Give the routing of arrays, or of lists of lists.

    loads: [layers, experts], [experts] of one layer, or [steps, layers, experts], which are added up. transitions:
    [layers - 1, experts, experts]. tokens: [layers, devices, experts], or [devices, experts] for each layer alike.

    Raises InputError, with `file` and the path to the array, where one isn't of such a shape, has a number that is
    negative or not finite, or a layer that has none above 0.
    """
    counted = _numbers(loads, file=file, path=path)
    counted = counted[None] if counted.ndim == 1 else counted.sum(axis=0) if counted.ndim == 3 else counted
    if counted.ndim != 2 or not counted.size:
        raise InputError(
            f"must be [layers, experts] or [steps, layers, experts], not of shape {list(counted.shape)}",
            file=file,
            path=path,
        )
    for layer in np.flatnonzero(~counted.any(axis=1)):
        raise InputError(
            f"no expert of layer {layer} has any load",
            file=file,
            path=f"{path}.{layer}",
            hint="leave out layers without experts, or name the model with --model, which says which they are",
        )
    layers, experts = counted.shape
    moved = None if transitions is None else _numbers(transitions, file=file, path="transitions")
    if moved is not None and moved.shape != (layers - 1, experts, experts):
        expected = [layers - 1, experts, experts]
        raise InputError(f"must be of shape {expected}, not {list(moved.shape)}", file=file, path="transitions")
    sent = None if tokens is None else _numbers(tokens, file=file, path="tokens")
    if sent is not None and sent.ndim == 2:
        sent = np.broadcast_to(sent, (layers, *sent.shape)).copy()
    if sent is not None and (sent.ndim != 3 or (len(sent), sent.shape[2]) != (layers, experts)):
        raise InputError(
            f"must be [layers, devices, experts] with {layers} layers and {experts} experts, not of shape "
            f"{list(sent.shape)}",
            file=file,
            path="tokens",
        )
    return Routing(loads=counted, transitions=moved, tokens=sent)


def require_homes(routing: Routing, devices: int, *, file: str = "") -> None:
    """Raise InputError where `tokens` come from another number of devices than experts are placed on."""
    if routing.tokens is not None and routing.tokens.shape[1] != devices:
        raise InputError(f"are from {routing.tokens.shape[1]} devices, not {devices}", file=file, path="tokens")


def _numbers(values: object, *, file: str, path: str) -> FloatArray:
    """Give an array of floats. Raises InputError where it is ragged, not of numbers, or has one that can't be."""
    try:
        array = np.asarray(values)
        numbers = array.astype(np.float64) if array.dtype.kind in "uif" else None
    except (ValueError, TypeError, OverflowError):
        numbers = None
    if numbers is None:
        raise InputError("must be an array of numbers, with rows as long as each other", file=file, path=path)
    for bad, what in ((~np.isfinite(numbers), "isn't a finite number"), (numbers < 0, "is negative")):
        for at in np.argwhere(bad)[:1]:
            place = ".".join(map(str, at))
            raise InputError(f"{numbers[tuple(at)]:g} {what}", file=file, path=f"{path}.{place}")
    for bad, what in (
        (numbers > LARGEST_WEIGHT, f"is above {LARGEST_WEIGHT:g}"),
        ((numbers > 0) & (numbers < LEAST_WEIGHT), f"is below {LEAST_WEIGHT:g}, and isn't 0"),
    ):
        for at in np.argwhere(bad)[:1]:
            place = ".".join(map(str, at))
            raise InputError(what, file=file, path=f"{path}.{place}")
    return numbers
