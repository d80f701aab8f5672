"""From the experts that each token went to, to loads and transitions."""

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.experts.array_file import Array

# Experts of a layer, far beyond any model: transitions are their square.
MOST_EXPERTS = 4096


def counted(trace: Array, *, experts: int | None, file: str) -> tuple[FloatArray, FloatArray]:
    """Give loads [layers, experts] and transitions [layers - 1, experts, experts] of a trace.

    trace: experts [tokens, layers] or [tokens, layers, top_k]. A token that goes to k experts counts once in each load,
    and 1 / k in each of its k x k transitions, so that those from an expert add up to its load. experts: of a layer;
    None where the largest one of the trace is the last.

    Raises InputError where the trace is of another shape, or holds what is no expert.
    """
    if trace.ndim not in (2, 3) or not trace.size or trace.dtype.kind not in "uif":
        raise InputError("must be experts [tokens, layers] or [tokens, layers, top_k]", file=file, path="trace")
    chosen = trace.reshape(*trace.shape[:2], -1)
    if chosen.dtype.kind == "f" and not (np.isfinite(chosen) & (chosen == np.floor(chosen))).all():
        raise InputError("must be whole numbers of experts", file=file, path="trace")
    if chosen.min() < 0 or chosen.max() >= MOST_EXPERTS:
        raise InputError(f"must be experts from 0 to {MOST_EXPERTS - 1}", file=file, path="trace")
    paths = chosen.astype(np.int64)
    count = int(paths.max()) + 1 if experts is None else experts
    if paths.max() >= count:
        raise InputError(f"holds expert {paths.max()} of {count}", file=file, path="trace")
    _, layers, top = paths.shape
    loads = np.stack([np.bincount(paths[:, layer].ravel(), minlength=count) for layer in range(layers)])
    moves = np.zeros((layers - 1, count, count))
    for layer in range(layers - 1):
        pairs = paths[:, layer, :, None] * count + paths[:, layer + 1, None, :]
        moves[layer] = np.bincount(pairs.ravel(), minlength=count * count).reshape(count, count) / top
    return loads.astype(np.float64), moves
