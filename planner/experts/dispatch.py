"""What a placement does to the tokens: which device computes them, and which of them travel.

A layer's tokens [source device, expert] go to the replicas of their expert. With `equal-split` each of c replicas gets
1 / c of them, wherever they come from. With `locality-first` those whose device holds the expert stay; of the others,
those whose node holds it are split among its replicas there; the rest among all replicas.

Where transitions say which expert of the layer before a token comes from, its source is the device that computed it
there: tokens stay with the experts, as in context-coherent execution (J. Yao et al., ExFlow, 2024). Layer 0 then has
no source. Tokens of an expert that none is known to have come to are split alike.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.counts import held_counts
from meshwright.planner.experts.placement import Dispatch
from meshwright.planner.experts.products import product
from meshwright.planner.experts.routing import Routing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dispatched:
    """Tokens after the dispatch.

    loads: of each device [layers, devices]. cross_device, cross_node: tokens that leave, over all with a source; None
    where no token has one.
    """

    loads: FloatArray
    cross_device: float | None = None
    cross_node: float | None = None


@dataclass(slots=True, kw_only=True)
class _Tally:
    total: float = 0.0
    on_device: float = 0.0
    on_node: float = 0.0


def held(by_device: IntArray, experts: int) -> BoolArray:
    """Give whether each device holds each expert [layers, devices, experts] of [layers, devices, slots of a device]."""
    layers, devices, _ = by_device.shape
    out = np.zeros((layers, devices, experts + 1), bool)
    # Empty slots, -1, fall into the last column.
    out[np.arange(layers)[:, None, None], np.arange(devices)[None, :, None], by_device] = True
    return out[:, :, :experts]


def dispatched(routing: Routing, by_device: IntArray, *, nodes: int, rule: Dispatch) -> Dispatched:
    """Give the loads of the devices and the tokens that travel, by the rule of dispatch.

    by_device: experts [layers, devices, slots of a device], every expert somewhere.
    """
    if routing.tokens is None and (routing.transitions is None or routing.layers == 1):
        return Dispatched(loads=_alike(routing.loads, by_device))
    holds = held(by_device, routing.experts)
    split = holds / holds.sum(axis=1, keepdims=True)
    tally = _Tally()
    if routing.tokens is not None:
        out = np.stack(
            [
                _split(_sent(sent, here, nodes=nodes, rule=rule, tally=tally), here, load)
                for sent, here, load in zip(routing.tokens, holds, routing.loads, strict=True)
            ]
        )
    else:
        out = _chained(routing, holds, split, nodes=nodes, rule=rule, tally=tally)
    if not tally.total:
        return Dispatched(loads=out)
    # Rounding may make the parts larger than the whole.
    device, node = (max(0.0, 1 - kept / tally.total) for kept in (tally.on_device, tally.on_node))
    return Dispatched(loads=out, cross_device=device, cross_node=node)


def _alike(loads: FloatArray, by_device: IntArray) -> FloatArray:
    """Give the loads of the devices where replicas share alike."""
    experts = loads.shape[1]
    counts = held_counts(by_device, experts)
    # Empty slots, -1, take the last column.
    each = np.pad(loads / counts, ((0, 0), (0, 1)))
    out: FloatArray = each[np.arange(len(each))[:, None, None], by_device].sum(axis=2)
    return out


def _chained(
    routing: Routing, holds: BoolArray, split: FloatArray, *, nodes: int, rule: Dispatch, tally: _Tally
) -> FloatArray:
    """Follow the tokens from layer to layer."""
    arrived = routing.loads[0] * split[0]
    loads = [arrived.sum(axis=1)]
    for moved, even, here, load in zip(routing.moves, split[:-1], holds[1:], routing.loads[1:], strict=True):
        share = _shares(arrived, even)
        arrived = _sent(product(share, moved), here, nodes=nodes, rule=rule, tally=tally)
        loads.append(_split(arrived, here, load))
    return np.stack(loads)


def _shares(arrived: FloatArray, even: FloatArray) -> FloatArray:
    """Give the part of each expert's tokens that each device has, as they arrived; of those that got none, alike."""
    came = arrived.sum(axis=0)
    return np.where(came > 0, arrived / np.maximum(came, 1e-300), even)


def _split(arrived: FloatArray, holds: BoolArray, load: FloatArray) -> FloatArray:
    """Give the load of each device [devices] of one layer, each expert's split as the tokens that arrived.

    Loads may be in another unit than those, or of other tokens.
    """
    split: FloatArray = (_shares(arrived, holds / holds.sum(axis=0)) * load).sum(axis=1)
    return split


def _sent(tokens: FloatArray, holds: BoolArray, *, nodes: int, rule: Dispatch, tally: _Tally) -> FloatArray:
    """Give the tokens that reach each replica [devices, experts] of tokens [source device, expert]."""
    devices, experts = tokens.shape
    here = holds.astype(np.float64)
    count = here.sum(axis=0)
    by_node = here.reshape(nodes, -1, experts).sum(axis=1)
    near = np.repeat(by_node, devices // nodes, axis=0)
    tally.total += float(tokens.sum())
    if rule is Dispatch.EQUAL_SPLIT:
        tally.on_device += float((tokens * here / count).sum())
        tally.on_node += float((tokens * near / count).sum())
        alike: FloatArray = here * (tokens.sum(axis=0) / count)
        return alike
    staying = tokens * here
    nearby = np.where((here == 0) & (near > 0), tokens, 0.0)
    far = np.where(near == 0, tokens, 0.0)
    tally.on_device += float(staying.sum())
    tally.on_node += float(staying.sum() + nearby.sum())
    in_node = nearby.reshape(nodes, -1, experts).sum(axis=1) / np.maximum(by_node, 1)
    near_first: FloatArray = staying + here * (np.repeat(in_node, devices // nodes, axis=0) + far.sum(axis=0) / count)
    return near_first
