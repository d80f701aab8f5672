"""A replay of moves on random bits, element by element, and what doesn't end where the new plan wants it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.resharding.document import MovesGroup, document_of, incomplete, misformed
from meshwright.planner.verification.resharding.shards import held

Bits = NDArray[np.uint64]
BITS = {2: np.uint16, 4: np.uint32}
NEVER = 2**62


@dataclass(frozen=True, slots=True)
class _Buffers:
    """One state of one tensor, on all ranks of both sides: the values, and which elements each buffer is of.

    written: how often each element of a new buffer was written; arrived: in which round, NEVER where in none.
    """

    whole: Bits
    old: dict[int, Bits]
    old_numbers: dict[int, NDArray[np.int64]]
    new: dict[int, Bits]
    new_numbers: dict[int, NDArray[np.int64]]
    written: dict[int, NDArray[np.int64]]
    arrived: dict[int, NDArray[np.int64]]


def replayed(
    document: Mapping[str, Any], old: Plan | None, new: Plan | None, *, gradients: bool | None = None, seed: int = 0
) -> tuple[str, ...]:
    """Replay the moves of a document between two plans, or a checkpoint (None), on random values.

    Gives what is wrong, one sentence each; nothing where every element of every tensor and state of the plans' model is
    on every rank that the new plan wants it on, bit for bit, and each move sends only what its sender has by then.

    Args:
        document: as read from a file of moves.
        old: the plan by which the state lies.
        new: the plan by which it is to lie; of the two one at most is None.
        gradients: whether their sums are to move; None: unless one side is a checkpoint, which has none.
        seed: of the random values.

    """
    read, plans = document_of(document), [plan for plan in (old, new) if plan is not None]
    if isinstance(read, str):
        return (read,)
    found = list(incomplete(read, plans, gradients=len(plans) == 2 if gradients is None else gradients))
    found += misformed(read, plans)
    if found:
        return tuple(found)
    random = np.random.default_rng(seed)
    for group in read.groups:
        for name, (state, element_bytes) in product(group.tensors, group.states.items()):
            shape = tuple(group.shape)
            values = random.integers(0, 2 ** (8 * element_bytes), size=prod(shape), dtype=np.uint64)
            values = values.astype(BITS[element_bytes]).astype(np.uint64)
            buffers = _buffers(old, new, name, shape, state, values, read.checkpoint)
            label = f"{name} ({state})"
            found += [f"{label}: {wrong}" for wrong in _moved(group, buffers, read.checkpoint)]
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
        arrived={rank: np.full(len(numbers), NEVER) for rank, numbers in after.items()},
    )


def _numbers(
    plan: Plan | None, name: str, shape: tuple[int, ...], state: str, checkpoint: int
) -> dict[int, NDArray[np.int64]]:
    if plan is None:
        return {checkpoint: np.arange(prod(shape))}
    found = {rank: held(plan, rank, name, shape, state) for rank in range(plan.mesh.devices)}
    return {rank: numbers for rank, numbers in found.items() if numbers is not None}


def _moved(group: MovesGroup, buffers: _Buffers, checkpoint: int) -> Iterator[str]:
    moves, whole = group.moves, _row_major(group.folded)
    order = sorted(range(len(moves.round)), key=lambda row: moves.round[row])
    for row in order:
        source, destination, relayed = moves.source[row], moves.destination[row], bool(moves.relayed[row])
        giver = (buffers.new if relayed else buffers.old).get(source)
        taker = buffers.new.get(destination)
        if giver is None or taker is None:
            yield f"move {row} from {source} to {destination}: one of them has no such tensor"
            continue
        apart = whole if source == checkpoint else group.new_strides if relayed else group.old_strides
        apart_there = whole if destination == checkpoint else group.new_strides
        from_, into, size = moves.source_element[row], moves.destination_element[row], moves.size[row]
        if _last(from_, size, apart) >= len(giver) or _last(into, size, apart_there) >= len(taker):
            yield f"move {row} from {source} to {destination}: reaches beyond a shard"
            continue
        given = _places(from_, size, apart)
        to = _places(into, size, apart_there)
        box = _places(sum(map(mul, moves.start[row], whole)), size, whole)
        if (buffers.new_numbers[destination][to] != box).any():
            yield f"move {row} from {source} to {destination}: its place in the shard isn't that of its start and size"
            continue
        if relayed and not (buffers.arrived[source][given] < moves.round[row]).all():
            yield f"move {row} from {source} to {destination}: the sender hasn't got it yet"
        taker[to] = giver[given]
        buffers.written[destination][to] += 1
        buffers.arrived[destination][to] = moves.round[row]


def _last(first: int, size: list[int], apart: list[int]) -> int:
    """Give the last element of a box; the first is none below 0."""
    return first + sum((extent - 1) * stride for extent, stride in zip(size, apart, strict=True))


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
