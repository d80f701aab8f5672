"""SGLang's `--init-expert-location`: a JSON object with `physical_to_logical_map` alone.

An extra key is an argument that SGLang's `init_by_mapping` doesn't take. Its rows are all of the model's layers, so
layers without experts hold the experts in turn, as they do without the option.
"""

import json
from collections.abc import Sequence

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.formats.filled import filled

KEY = "physical_to_logical_map"


def text(placement: IntArray, *, devices: int, at: Sequence[int], layers: int) -> str:
    """Give the file. at: which of the model's `layers` each layer of the placement is."""
    experts = int(placement.max()) + 1
    rows = np.broadcast_to(np.arange(placement.shape[1]) % experts, (layers, placement.shape[1])).copy()
    rows[list(at)] = filled(placement, devices=devices)
    return json.dumps({KEY: rows.tolist()}) + "\n"


def read(document: dict[str, object]) -> object:
    """Give the placement [layers][slots]."""
    return document[KEY]
