"""The file of moves: one JSON document, columns of numbers by group, on a line each."""

import json
from importlib.metadata import version
from typing import Any

from meshwright.planner.resharding.moves import Moves, moves_of, strides
from meshwright.planner.resharding.reshard import Reshard

MOVES_FORMAT = 1
KEPT = "kept"


def moves_document(found: Reshard, *, old: str, new: str) -> dict[str, Any]:
    """Give the document of a reshard between two sides, named by the digests of their plans or as a checkpoint."""
    return {
        "version": MOVES_FORMAT,
        "meshwright": version("meshwright"),
        "old": old,
        "new": new,
        "checkpoint": found.checkpoint,
        "rounds": [KEPT, *(each.tier for each in found.traffic)],
        "groups": [_group(moves) for moves in moves_of(found)],
    }


def moves_json(document: dict[str, Any]) -> str:
    """Give a document as JSON, each column of numbers on one line."""
    head = [f"{_text(name)}: {_text(value)}" for name, value in document.items() if name != "groups"]
    groups = ",\n".join(map(_group_text, document["groups"]))
    return "{\n" + ",\n".join(head) + ',\n"groups": [\n' + groups + "\n]\n}\n"


def _group_text(group: dict[str, Any]) -> str:
    head = [f"  {_text(name)}: {_text(value)}" for name, value in group.items() if name != "moves"]
    columns = ",\n".join(f"    {_text(name)}: {_text(column)}" for name, column in group["moves"].items())
    return " {\n" + ",\n".join(head) + ',\n  "moves": {\n' + columns + "\n  }\n }"


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _group(moves: Moves) -> dict[str, Any]:
    group = moves.group
    return {
        "tensors": [tensor.name for tensor in group.tensors],
        "shape": list(group.tensors[0].shape),
        "folded": list(group.cube),
        "states": {state.name: state.element_bytes for state in group.states},
        "old_strides": list(strides(group.old.slab)),
        "new_strides": list(strides(group.new.slab)),
        "moves": {
            "round": moves.round.tolist(),
            "source": moves.source.tolist(),
            "destination": moves.destination.tolist(),
            "start": moves.start.tolist(),
            "size": moves.size.tolist(),
            "source_element": moves.source_element.tolist(),
            "destination_element": moves.destination_element.tolist(),
            "relayed": moves.relayed.astype(int).tolist(),
        },
    }
