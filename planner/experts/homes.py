"""Affinity: which group (node or device) each expert is at home in, so that the most tokens stay in their group.

x[l, e, g] is 1 where expert e of layer l is in group g: one group an expert, at most `size` experts a group; loads of
the groups under a cap; maximised is

    sum over l, i, j, g of M_l[i, j] x[l, i, g] x[l + 1, j, g]  +  sum over l, e, g of tokens[l, g, e] x[l, e, g]

For few experts a dynamic program along the layers is exact (`chained`). Without transitions each layer is an assignment
problem of its own. Else, with the layers beside it fixed, a layer is an assignment problem too, with

    gain[e, g] = sum over i in g of M_l-1[i, e] + sum over j in g of M_l[e, j] + tokens[l, g, e]

and the layers are swept forth and back; groups that got too heavy cost more in the next sweep, a price for each load.
At last each layer's groups are brought under the cap by the exchanges that lose least, then exchange what gains. Small
groups share out their experts anew in pairs, over all layers at once (`shared_out`).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.assignment import assigned, capped, exchanged
from meshwright.planner.experts.chain import chained, solvable
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.pair_chain import shared_out
from meshwright.planner.experts.products import product
from meshwright.planner.experts.spectral import first_homes

SWEEPS = 3
# What a group's load above the mean adds to the price of load, relative, in tokens.
PRICE = 0.5
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pull:
    """What keeps experts and tokens together.

    transitions: [layers - 1, experts, experts]; tokens: from each group [layers, groups, experts]; either may be None.
    loads: [layers, experts]. cap: the most load of a group [layers], which some placement keeps; asked: the one that
    was asked for, which may be below what any keeps.
    """

    transitions: FloatArray | None
    tokens: FloatArray | None
    loads: FloatArray
    cap: FloatArray
    asked: FloatArray
    groups: int

    @property
    def size(self) -> int:
        """The most experts of a group."""
        return -(-int(self.loads.shape[1]) // self.groups)

    def gains(self, homes: IntArray | None, layer: int, *, only_before: bool = False) -> FloatArray:
        """Give the tokens that stay with each expert of a layer in each group [experts, groups].

        homes: of the layers beside it; None where only `tokens` count. only_before: only the layer before counts.
        """
        gains = np.zeros((self.loads.shape[1], self.groups))
        if self.tokens is not None:
            gains += self.tokens[layer].T
        if homes is None or self.transitions is None:
            return gains
        if layer:
            gains += product(self.transitions[layer - 1].T, self._inside(homes[layer - 1]))
        if layer < len(self.transitions) and not only_before:
            gains += product(self.transitions[layer], self._inside(homes[layer + 1]))
        return gains

    def _inside(self, home: IntArray) -> FloatArray:
        inside: FloatArray = np.eye(self.groups)[home]
        return inside


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Homes:
    """The group of each expert [layers, experts].

    exact: whether no other homes under the cap keep more tokens. free: whether none above it do either.
    """

    home: IntArray
    exact: bool
    free: bool
    method: str


def homes_of(pull: Pull, *, deadline: Deadline = NEVER) -> Homes:
    """Give homes that keep many tokens in their group, under the cap where exchanges get there."""
    layers, experts = pull.loads.shape
    moves, tokens = pull.transitions, pull.tokens
    if pull.groups == 1:
        return Homes(home=np.zeros((layers, experts), np.int64), exact=True, free=True, method="one group")
    if moves is not None and tokens is None and solvable(pull.size * pull.groups, pull.groups):
        best = _chained(pull, moves, pull.asked, deadline)
        if best is not None:
            return Homes(
                home=best,
                exact=True,
                free=_is_free(pull, moves, best, deadline),
                method="dynamic program along the layers",
            )
    if moves is None:
        free = _assigned(pull, deadline)
        home = _under_cap(pull, free, deadline)
        exact = bool((home == free).all()) and not deadline.struck
        return Homes(home=home, exact=exact, free=exact, method="assignment by layer")
    home = _under_cap(pull, _swept(pull, moves, deadline), deadline)
    home = shared_out(moves, pull.tokens, pull.loads, home, groups=pull.groups, cap=pull.cap, deadline=deadline)
    return Homes(home=home, exact=False, free=False, method="sweeps of assignments")


def _is_free(pull: Pull, moves: FloatArray, best: IntArray, deadline: Deadline) -> bool:
    """Say whether no homes above the cap keep more tokens. Asked only where places stay empty, in which copies fit."""
    if not np.isfinite(pull.asked).any() or pull.size * pull.groups == pull.loads.shape[1]:
        return True
    uncapped = _chained(pull, moves, np.full_like(pull.asked, np.inf), deadline)
    return uncapped is not None and _staying(moves, best) >= _staying(moves, uncapped) * (1 - ROUNDING)


def _staying(moves: FloatArray, home: IntArray) -> float:
    return float((moves * (home[:-1, :, None] == home[1:, None, :])).sum())


def _chained(pull: Pull, moves: FloatArray, cap: FloatArray, deadline: Deadline) -> IntArray | None:
    """Give the best homes, with places that stay empty as experts without tokens."""
    experts = pull.loads.shape[1]
    none = (0, pull.size * pull.groups - experts)
    best = chained(
        np.pad(moves, ((0, 0), none, none)),
        np.pad(pull.loads, ((0, 0), none)),
        groups=pull.groups,
        cap=cap,
        deadline=deadline,
    )
    return None if best is None else best[:, :experts]


def _assigned(pull: Pull, deadline: Deadline) -> IntArray:
    """Give the best homes of each layer without the cap, in turn where the time is over."""
    layers, experts = pull.loads.shape
    home = np.broadcast_to(np.arange(experts) % pull.groups, (layers, experts)).copy()
    for layer in range(layers):
        if deadline.passed():
            break
        home[layer] = assigned(pull.gains(None, layer), size=pull.size)
    return home


def _swept(pull: Pull, moves: FloatArray, deadline: Deadline) -> IntArray:
    layers, experts = pull.loads.shape
    home = np.zeros((layers, experts), np.int64)
    mean = pull.loads.sum(axis=1, keepdims=True) / pull.groups
    capped_ = np.isfinite(pull.cap)
    price = np.zeros((layers, pull.groups))
    home[:] = first_homes(moves, pull.loads[0], groups=pull.groups, size=pull.size, deadline=deadline)
    for sweep in range(-1, SWEEPS):
        for layer in range(layers - 1, -1, -1) if sweep % 2 == 0 else range(layers):
            if sweep < 0 and layer == 0:
                continue
            if deadline.passed():
                return home
            gains = pull.gains(home, layer, only_before=sweep < 0)
            home[layer] = assigned(gains - price[layer] * pull.loads[layer][:, None], size=pull.size)
            load = np.bincount(home[layer], pull.loads[layer], minlength=pull.groups)
            price[layer] += PRICE * (load / mean[layer] - 1) * capped_[layer]
    return home


def _under_cap(pull: Pull, home: IntArray, deadline: Deadline) -> IntArray:
    home = home.copy()
    for layer in map(int, np.flatnonzero(np.isfinite(pull.cap))):
        gains, weights, cap = pull.gains(home, layer), pull.loads[layer], float(pull.cap[layer])
        under = capped(home[layer], gains, weights, cap=cap, deadline=deadline)
        home[layer] = exchanged(under, gains, weights, cap=cap, deadline=deadline)
    return home
