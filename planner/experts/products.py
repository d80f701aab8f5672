"""Products of matrices in pieces that linear-algebra libraries compute in one thread.

So the last digits, and with them the placement, don't depend on the number of cores, and small products don't wait for
busy ones.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray

# OpenBLAS starts threads above 2^18 multiplications (interface/gemm.c: SMP_THRESHOLD_MIN x GEMM_MULTITHREAD_THRESHOLD).
MOST_MULTIPLICATIONS = 2**18


def product(left: FloatArray, right: FloatArray) -> FloatArray:
    """Give left @ right of [rows, inner] and [inner, columns]."""
    rows, inner = left.shape
    columns = right.shape[1]
    most = max(1, MOST_MULTIPLICATIONS // max(inner * columns, 1))
    if rows <= most:
        return left @ right
    out = np.empty((rows, columns))
    for first in range(0, rows, most):
        np.matmul(left[first : first + most], right, out=out[first : first + most])
    return out
