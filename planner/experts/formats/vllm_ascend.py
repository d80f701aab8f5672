"""vllm-ascend's `expert_map_path`: layers, the devices of each, and the experts of each of those."""

import json
from typing import Any

from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.formats.filled import filled

KEY = "moe_layer_count"


def text(placement: IntArray, *, devices: int) -> str:
    """Give the file of a placement [layers, slots]."""
    rows = filled(placement, devices=devices).reshape(len(placement), devices, -1).tolist()
    layers = [
        {
            "layer_id": layer,
            "device_count": devices,
            "device_list": [{"device_id": device, "device_expert": here} for device, here in enumerate(row)],
        }
        for layer, row in enumerate(rows)
    ]
    return json.dumps({KEY: len(rows), "layer_list": layers}) + "\n"


def read(document: dict[str, Any]) -> object:
    """Give the placement [layers][slots], layers and devices in the order of their numbers.

    Raises KeyError, TypeError or ValueError where it isn't of this form.
    """
    layers = sorted(document["layer_list"], key=lambda layer: int(layer["layer_id"]))
    if len(layers) != document[KEY]:
        raise ValueError(f"{KEY} is {document[KEY]} of {len(layers)} layers")
    rows = []
    for layer in layers:
        devices = sorted(layer["device_list"], key=lambda device: int(device["device_id"]))
        if len(devices) != layer["device_count"]:
            raise ValueError(f"device_count is {layer['device_count']} of {len(devices)} devices")
        rows.append([expert for device in devices for expert in device["device_expert"]])
    return rows
