"""DeepSeek's EPLB: three maps in one `.npz`.

phy2log [layers, slots]: the expert of each slot. log2phy [layers, experts, most replicas]: the slots of each expert,
padded with -1. logcnt [layers, experts]: how many those are. (github.com/deepseek-ai/EPLB, `rebalance_experts`)
"""

from collections.abc import Mapping
from io import BytesIO

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.formats.filled import filled


def maps(placement: IntArray, *, devices: int) -> dict[str, IntArray]:
    """Give the three maps of a placement [layers, slots]."""
    slots = filled(placement, devices=devices)
    layers, experts = len(slots), int(slots.max()) + 1
    counts = (slots[:, :, None] == np.arange(experts)).sum(axis=1)
    where = np.full((layers, experts, int(counts.max())), -1, np.int64)
    order = np.argsort(slots, axis=1, kind="stable")
    expert = np.take_along_axis(slots, order, axis=1)
    rows = np.arange(layers)[:, None]
    nth = np.arange(slots.shape[1]) - (np.cumsum(counts, axis=1) - counts)[rows, expert]
    where[rows, expert, nth] = order
    return {"phy2log": slots, "log2phy": where, "logcnt": counts}


def content(placement: IntArray, *, devices: int) -> bytes:
    """Give the file, the same bytes for the same placement."""
    file = BytesIO()
    found = maps(placement, devices=devices)
    np.savez(file, phy2log=found["phy2log"], log2phy=found["log2phy"], logcnt=found["logcnt"])
    return file.getvalue()


def read(arrays: Mapping[str, IntArray], *, file: str) -> IntArray:
    """Give the placement [layers, slots] of the maps. Raises InputError where they don't agree with one another."""
    placement = arrays["phy2log"]
    if placement.ndim != 2 or placement.dtype.kind not in "iu":
        raise InputError("must be whole numbers [layers, slots]", file=file, path="phy2log")
    if placement.size and placement.min() < 0:
        raise InputError("an expert is negative", file=file, path="phy2log")
    placed = placement.astype(np.int64)
    for name, expected in maps(placed, devices=1).items():
        if name in arrays and not np.array_equal(arrays[name], expected):
            raise InputError("isn't that of phy2log", file=file, path=name)
    return placed
