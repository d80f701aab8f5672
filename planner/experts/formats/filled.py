"""Placements without empty slots, as engines want them."""

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.placement import EMPTY


def filled(placement: IntArray, *, devices: int) -> IntArray:
    """Give the placement [layers, slots] with a second copy of an expert of the same device in each empty slot.

    An expert that is on this device alone is copied, where there is one: however its tokens are split, they stay.
    """
    out = placement.reshape(len(placement), devices, -1).copy()
    for layer, device, slot in np.argwhere(out == EMPTY):
        here = [int(expert) for expert in out[layer, device] if expert != EMPTY]
        elsewhere = set(np.delete(out[layer], device, axis=0).ravel().tolist())
        alone = [expert for expert in here if expert not in elsewhere]
        # A device that holds nothing copies the first expert of the layer.
        out[layer, device, slot] = min(alone or here or [int(out[layer].max())])
    return out.reshape(placement.shape)
