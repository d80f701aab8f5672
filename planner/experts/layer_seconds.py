"""How long a layer's experts take, by the cost model, for a placement of measured tokens."""

import numpy as np

from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import Precision
from meshwright.costmodels.collectives import Group, all_to_all_s
from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.hardware.cluster import Cluster
from meshwright.planner.experts.model_sizes import WEIGHT_BYTES, experts_of


def layer_seconds(
    model: ModelEntry, cluster: Cluster, loads: FloatArray, *, devices: int, slots: int, cross_device: float | None
) -> FloatArray:
    """Give the seconds of each layer's routed experts, forward: dispatch, products of the busiest device, combine.

    loads: tokens of the busiest and of the mean device [layers, 2]. The busiest device's slots share its tokens alike
    in grouped products, whose rows are rounded up to half a tile on average, as `mlp_products` has them. What each
    device sends is its mean share; where it is known which of it stays, only what leaves, over what does by chance.

    Raises MissingData where the device has no peak for BF16.
    """
    experts, hidden = experts_of(model), float(model.hidden)
    local = slots / devices
    rows = loads[:, 0] / local + cluster.device.tile_rows / 2
    seconds = np.zeros(len(loads))
    for columns, inner in ((experts.ffn_hidden * (2 if experts.gated else 1), hidden), (hidden, experts.ffn_hidden)):
        product = Matmul(
            rows=rows, columns=np.array(float(columns)), inner=np.array(float(inner)), count=np.array(local)
        )
        seconds += matmul_time_s(cluster.device, Precision.BF16, product)
    leaving = 1.0 if cross_device is None or devices == 1 else cross_device / (1 - 1 / devices)
    sent_bytes = loads[:, 1] * hidden * WEIGHT_BYTES * leaving
    group = Group(size=np.full(len(loads), devices), stride=np.ones(len(loads), np.int64))
    total: FloatArray = seconds + 2 * all_to_all_s(cluster, group, sent_bytes)
    return total
