"""The files of a placement."""

from collections.abc import Mapping

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.counts import held_counts
from meshwright.planner.experts.formats import eplb, megatron, sglang, vllm, vllm_ascend
from meshwright.planner.experts.placement import Placement
from meshwright.planner.experts.placement_file import placement_text

PLACEMENT_FILE = "placement.json"


def placement_files(placement: Placement, *, at: tuple[int, ...], model_layers: int) -> Mapping[str, str | bytes]:
    """Give the files by name: ours, and one for each engine. The same placement gives the same bytes.

    at: which of the model's `model_layers` each layer of the placement is.
    """
    slots, devices = placement.without_empty, placement.devices
    return {
        PLACEMENT_FILE: placement_text(placement, at=at, model_layers=model_layers),
        "eplb.npz": eplb.content(slots, devices=devices),
        "sglang.json": sglang.text(slots, devices=devices, at=at, layers=model_layers),
        "vllm.json": vllm.text(slots, devices=devices),
        "vllm_ascend.json": vllm_ascend.text(slots, devices=devices),
        "megatron.json": megatron.text(placement.placement, devices=devices),
    }


def in_turn(layers: int, experts: int, slots: int) -> IntArray:
    """Give the placement [layers, slots] of engines that aren't told one: experts in turn, from the first again."""
    return np.broadcast_to(np.arange(slots) % experts, (layers, slots)).copy()


def even_loads(loads: FloatArray, placement: IntArray, *, devices: int) -> FloatArray:
    """Give the load of each device [layers, devices] over the mean where replicas share alike.

    An expert that is twice on a device has there as much as its copies on two would.
    """
    experts = loads.shape[1]
    mean = loads.sum(axis=1, keepdims=True) / devices
    counts = held_counts(placement, experts)
    # Empty slots, -1, take the last column.
    each = np.pad(loads / np.maximum(counts, 1), ((0, 0), (0, 1)))
    over_mean: FloatArray = (
        np.take_along_axis(each, placement, axis=1).reshape(len(placement), devices, -1).sum(axis=2) / mean
    )
    return over_mean
