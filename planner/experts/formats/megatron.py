"""Megatron-style: of each layer the experts of each rank of the expert-parallel group.

Megatron-LM gives rank r the experts r n to (r + 1) n - 1; renaming the experts of its checkpoint and router by this
list puts the others there. It has no replicas: a list with an expert on two ranks is for engines that do.
"""

import json

from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.placement import EMPTY


def text(placement: IntArray, *, devices: int) -> str:
    """Give the file of a placement [layers, slots]: [layers][ranks][experts], empty slots left out."""
    rows = placement.reshape(len(placement), devices, -1).tolist()
    ranks = [[[expert for expert in here if expert != EMPTY] for here in row] for row in rows]
    return json.dumps(ranks) + "\n"


def read(document: list[list[list[int]]]) -> object:
    """Give the placement [layers][slots], slots left empty where ranks hold fewer experts than others."""
    most = max(len(here) for row in document for here in row)
    return [[expert for here in row for expert in (*here, *[EMPTY] * (most - len(here)))] for row in document]
