"""How many tokens can stay in their group at most, by how far an expert tells the next one.

M[i, j] are the T tokens of one hop, a and b its sums of rows and columns; groups have a load of at most L before it and
L' after. With A[i, g] = sqrt(a_i) x[i, g], B[j, g] = sqrt(b_j) y[j, g] and N = M[i, j] / sqrt(a_i b_j), which makes no
vector longer and sqrt(a) of sqrt(b), what stays is

    tr A' N B  =  sum over g of a(g) b(g) / T  +  tr A' R B          R = N - sqrt(a) sqrt(b)' / T

since A' makes the groups' loads a(g) of sqrt(a). Rows of A' A sum to at most L, so that no squared singular value of A
is above L, and they sum to at most T. Without the part along sqrt(a), of squared length u = sum of a(g)^2 / T <= L,
there are G - 1 left, which sum to T - u. With the singular values r_1 >= r_2 >= ... of R (L. Mirsky, A trace inequality
of John von Neumann, 1975), which are at most 1, so that u = L is best,

    stays  <=  sqrt(h(L) h(L')),   h(L) = L + max { sum over k < G of r_k z_k : 0 <= z_k <= L, sum of z_k <= T - L }

Shares of replicas that split tokens alike, x between 0 and 1, are no better. Of many experts not each r but the sum of
r^16 is computed, and h by Hoelder's inequality.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray

# Experts up to which all singular values are computed, and the power whose sum is taken for more.
MOST_SINGULAR = 64
POWER = 16
# Sums of rows and columns that differ by more from the loads are of other tokens.
SAME = 1e-9
# What single precision may lose, relative to the longest.
LOST = 1e-4


def most_staying(moves: FloatArray, before: FloatArray, after: FloatArray, *, groups: int) -> FloatArray:
    """Give how many tokens of each hop [hops] can stay in their group at most.

    moves: [hops, experts, experts]; before, after: the most load of a group on either side [hops], in their tokens.
    """
    rows, columns, tokens = moves.sum(axis=2), moves.sum(axis=1), moves.sum(axis=(1, 2))
    lengths = moves * _inverse_root(rows)[:, :, None] * _inverse_root(columns)[:, None, :]
    there = np.where(tokens > 0, tokens, 1.0)
    lengths -= np.sqrt(rows)[:, :, None] * (np.sqrt(columns) / there[:, None])[:, None, :]
    power = POWER if moves.shape[1] > MOST_SINGULAR else 1
    if power == 1:
        singular = np.minimum(np.linalg.svd(lengths, compute_uv=False) * (1 + SAME) + SAME, 1.0)
    else:
        singular = np.repeat(_norm(lengths)[:, None], groups, axis=1)
    limits = [_limit(singular, there, np.minimum(most, tokens), groups=groups, power=power) for most in (before, after)]
    stay: FloatArray = np.minimum(tokens, np.sqrt(limits[0] * limits[1]))
    return stay


def _inverse_root(values: FloatArray) -> FloatArray:
    root: FloatArray = np.where(values > 0, 1 / np.sqrt(np.where(values > 0, values, 1.0)), 0.0)
    return root


def _norm(lengths: FloatArray) -> FloatArray:
    """Give the 16th root of the sum of r^16 of each matrix: of squares of squares of R R'."""
    single = lengths.astype(np.float32)
    square = single @ single.swapaxes(1, 2)
    for _ in range(2):
        square = square @ square
    norm: FloatArray = np.sqrt((square.astype(np.float64) ** 2).sum(axis=(1, 2))) ** (2 / POWER) + LOST
    return norm


def _limit(singular: FloatArray, tokens: FloatArray, most: FloatArray, *, groups: int, power: int) -> FloatArray:
    """Give h(L) of each hop. singular: r, the largest first, or their norm of that power [hops, experts]."""
    left = tokens - most
    shares = np.clip(left[:, None] - np.arange(groups - 1) * most[:, None], 0.0, most[:, None])
    if power == 1:
        known = singular[:, : groups - 1]
        along = (known * shares[:, : known.shape[1]]).sum(axis=1)
    else:
        dual = power / (power - 1)
        along = singular[:, 0] * (shares**dual).sum(axis=1) ** (1 / dual)
    limit: FloatArray = most + np.minimum(along, left)
    return limit
