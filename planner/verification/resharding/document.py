"""What a file of moves has to say before it can be replayed: its fields, all tensors and states, boxes and rounds."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.resharding.tensors import states_of, tensors_of

Number = Annotated[int, Field(ge=0, lt=2**62, strict=True)]
Extent = Annotated[int, Field(ge=1, lt=2**62, strict=True)]
Cube = Annotated[list[Extent], Field(min_length=3, max_length=3)]
Place = Annotated[list[Number], Field(min_length=3, max_length=3)]
KEPT, STORAGE = "kept", "storage"


class Columns(BaseModel):
    """Columns of moves, of one length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: list[Number]
    source: list[Number]
    destination: list[Number]
    start: list[Place]
    size: list[Cube]
    source_element: list[Number]
    destination_element: list[Number]
    relayed: list[Annotated[int, Field(ge=0, le=1, strict=True)]]


class MovesGroup(BaseModel):
    """Tensors and states that move alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensors: list[str]
    shape: list[Extent]
    folded: Cube
    states: dict[str, int]
    old_strides: Cube
    new_strides: Cube
    moves: Columns


class MovesFile(BaseModel):
    """A file of moves, as far as it is replayed."""

    model_config = ConfigDict(frozen=True)

    checkpoint: Number
    rounds: Annotated[list[str], Field(min_length=1)]
    groups: list[MovesGroup]


def document_of(given: Mapping[str, Any]) -> MovesFile | str:
    """Read a document of moves, or tell in a sentence which field isn't what it has to be."""
    try:
        return MovesFile.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def incomplete(document: MovesFile, plans: list[Plan], *, gradients: bool) -> Iterator[str]:
    """Tell of tensors and states of the plans' model that the file lacks, has twice or in another form, or invents."""
    shapes, states = tensors_of(plans[0].inputs.model.entry), states_of(plans[0], gradients=gradients)
    seen: set[tuple[str, str]] = set()
    for number, group in enumerate(document.groups):
        wrong = next(_unlike(group, shapes, states, seen), None)
        if wrong is not None:
            yield f"groups.{number}{wrong}"
            return
        seen |= set(product(group.tensors, group.states))
    lacking: dict[tuple[str, ...], list[str]] = {}
    for state in states:
        lacking.setdefault(tuple(name for name in shapes if (name, state) not in seen), []).append(state)
    for names, without in lacking.items():
        if names:
            others = f" and {len(names) - 1} other tensors" if len(names) > 1 else ""
            yield f"groups: nothing moves the {', '.join(without)} of {names[0]}{others}"


def _unlike(
    group: MovesGroup, shapes: dict[str, tuple[int, ...]], states: dict[str, int], seen: set[tuple[str, str]]
) -> Iterator[str]:
    for state, element_bytes in group.states.items():
        if states.get(state) != element_bytes:
            yield f".states.{state}: is {f'of {states[state]} bytes' if state in states else 'nothing that moves'}"
    for name in group.tensors:
        if name not in shapes:
            yield f".tensors: the model has no {name:.60}"
        elif tuple(group.shape) != shapes[name]:
            yield f".shape: is {group.shape}; {name} has {list(shapes[name])}"
        elif group.tensors.count(name) > 1 or any((name, state) in seen for state in group.states):
            yield f".tensors: {name} is there twice"


def misformed(document: MovesFile, plans: list[Plan]) -> Iterator[str]:
    """Give of each group the first thing that is wrong with its boxes or rounds, whatever its shards are."""
    tiers, devices = _tiers(plans), max(plan.mesh.devices for plan in plans)
    if document.checkpoint < devices:
        yield f"checkpoint: is {document.checkpoint}, which is a rank"
        return
    for number, group in enumerate(document.groups):
        wrong = next(_group(group, document, tiers, devices), None)
        if wrong is not None:
            yield f"groups.{number}.{wrong}"


def _tiers(plans: list[Plan]) -> list[tuple[str, int | None]]:
    widest = max(plans, key=lambda plan: plan.inputs.cluster.entry.devices)
    return [(tier.name, tier.group) for tier in widest.inputs.cluster.entry.tiers]


def _group(group: MovesGroup, document: MovesFile, tiers: list[tuple[str, int | None]], devices: int) -> Iterator[str]:
    moves = group.moves
    if len({len(column) for _, column in moves}) > 1:
        yield "moves: its columns differ in length"
        return
    if prod(group.folded) != prod(group.shape):
        yield f"folded: {group.folded} are not the elements of {group.shape}"
        return
    for row, (start, size) in enumerate(zip(moves.start, moves.size, strict=True)):
        if any(first + extent > end for first, extent, end in zip(start, size, group.folded, strict=True)):
            yield f"moves.size.{row}: {size} from {start} reaches beyond {group.folded}"
    for row, number in enumerate(moves.round):
        source, destination = moves.source[row], moves.destination[row]
        if number >= len(document.rounds):
            yield f"moves.round.{row}: is {number}; there are {len(document.rounds)}"
        elif source == destination:
            if document.rounds[number] != KEPT or moves.relayed[row]:
                yield f"moves.round.{row}: rank {source} keeps it, which is round 0, from its old shard"
        else:
            ends = (source, destination)
            beyond = next((end for end in ends if end >= devices and end != document.checkpoint), None)
            tier = STORAGE if document.checkpoint in ends else _between(source, destination, tiers)
            if beyond is not None:
                yield f"moves: row {row}: there is no rank {beyond}"
            elif document.rounds[number] != tier:
                yield f"moves.round.{row}: from {source} to {destination} is over {tier}, not {document.rounds[number]}"


def _between(one: int, other: int, tiers: list[tuple[str, int | None]]) -> str:
    """Give the name of the innermost tier that joins two devices."""
    return next((name for name, group in tiers if group is None or one // group == other // group), tiers[-1][0])
