"""vLLM: the expert of each slot, a list a layer with experts."""

import json

from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.formats.filled import filled


def text(placement: IntArray, *, devices: int) -> str:
    """Give the file of a placement [layers, slots]."""
    return json.dumps(filled(placement, devices=devices).tolist()) + "\n"


def read(document: list[object]) -> object:
    """Give the placement [layers][slots]."""
    return document
