"""A replay of moves on random bits, element by element, and what doesn't end where the new plan wants it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.resharding.shards import held

Bits = NDArray[np.uint64]
Column = list[Any]
BITS = {2: np.uint16, 4: np.uint32}


@dataclass(frozen=True, slots=True)
class _Buffers:
    """One state of one tensor, on all ranks of both sides: the values, and which elements each buffer is of.

    written: how often each element of a new buffer was written.
    """

    whole: Bits
    old: dict[int, Bits]
    old_numbers: dict[int, NDArray[np.int64]]
    new: dict[int, Bits]
    new_numbers: dict[int, NDArray[np.int64]]
    written: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def replayed(document: Mapping[str, Any], old: Plan | None, new: Plan | None, *, seed: int = 0) -> tuple[str, ...]:
    """Replay the moves of a document between two plans, or a checkpoint (None), on random values.

    Gives what is wrong, one sentence each; nothing where every element of every tensor and state is on every rank that
    the new plan wants it on, bit for bit, and each move sends only what its sender has by then.
    """
    random = np.random.default_rng(seed)
    found: list[str] = []
    for group in document["groups"]:
        for name, (state, element_bytes) in product(group["tensors"], group["states"].items()):
            shape = tuple(group["shape"])
            values = random.integers(0, 2 ** (8 * element_bytes), size=prod(shape), dtype=np.uint64)
            values = values.astype(BITS[element_bytes]).astype(np.uint64)
            buffers = _buffers(old, new, name, shape, state, values, document["checkpoint"])
            label = f"{name} ({state})"
            found += [f"{label}: {wrong}" for wrong in _moved(group, buffers, document["checkpoint"])]
            found += [f"{label}: {wrong}" for wrong in _ended(buffers)]
    return tuple(found)


def _buffers(
    old: Plan | None,
    new: Plan | None,
    name: str,
    shape: tuple[int, ...],
    state: str,
    values: Bits,
    checkpoint: int,
) -> _Buffers:
    before, after = (_numbers(plan, name, shape, state, checkpoint) for plan in (old, new))
    return _Buffers(
        whole=values,
        old={rank: np.where(numbers < 0, 0, values[numbers]) for rank, numbers in before.items()},
        old_numbers=before,
        new={rank: np.zeros(len(numbers), dtype=np.uint64) for rank, numbers in after.items()},
        new_numbers=after,
        written={rank: np.zeros(len(numbers), dtype=np.int64) for rank, numbers in after.items()},
    )


def _numbers(
    plan: Plan | None, name: str, shape: tuple[int, ...], state: str, checkpoint: int
) -> dict[int, NDArray[np.int64]]:
    if plan is None:
        return {checkpoint: np.arange(prod(shape))}
    found = {rank: held(plan, rank, name, shape, state) for rank in range(plan.mesh.devices)}
    return {rank: numbers for rank, numbers in found.items() if numbers is not None}


def _moved(group: Mapping[str, Any], buffers: _Buffers, checkpoint: int) -> Iterator[str]:
    moves: Mapping[str, Column] = group["moves"]
    order = sorted(range(len(moves["round"])), key=lambda row: int(moves["round"][row]))
    for row in order:
        source, destination = moves["source"][row], moves["destination"][row]
        relayed = bool(moves["relayed"][row])
        giver = (buffers.new if relayed else buffers.old).get(source)
        taker = buffers.new.get(destination)
        if giver is None or taker is None:
            yield f"move {row} from {source} to {destination}: one of them has no such tensor"
            continue
        of_new, of_old = group["new_strides"], group["folded"] if source == checkpoint else group["old_strides"]
        apart = _row_major(of_old) if source == checkpoint else of_old
        from_ = _places(moves["source_element"][row], moves["size"][row], of_new if relayed else apart)
        into = moves["destination_element"][row]
        to = _places(into, moves["size"][row], _row_major(group["folded"]) if destination == checkpoint else of_new)
        if min(from_) < 0 or max(from_) >= len(giver) or min(to) < 0 or max(to) >= len(taker):
            yield f"move {row} from {source} to {destination}: reaches beyond a shard"
            continue
        if relayed and not buffers.written[source][from_].all():
            yield f"move {row} from {source} to {destination}: the sender hasn't got it yet"
        taker[to] = giver[from_]
        buffers.written[destination][to] += 1


def _row_major(dimensions: list[int]) -> list[int]:
    return [dimensions[1] * dimensions[2], dimensions[2], 1]


def _places(first: int, size: list[int], apart: list[int]) -> list[int]:
    return [
        first + expert * apart[0] + row * apart[1] + column * apart[2]
        for expert in range(size[0])
        for row in range(size[1])
        for column in range(size[2])
    ]


def _ended(buffers: _Buffers) -> Iterator[str]:
    for rank, numbers in buffers.new_numbers.items():
        real = numbers >= 0
        times = buffers.written[rank]
        if (times[real] == 0).any():
            yield f"rank {rank} never gets {int((times[real] == 0).sum())} elements"
        elif (buffers.new[rank][real] != buffers.whole[numbers[real]]).any():
            yield f"rank {rank} ends with other values"
        if (times > 1).any():
            yield f"rank {rank} gets {int((times > 1).sum())} elements twice"
