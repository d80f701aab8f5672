"""How many bits each layer's gradients get: the knapsack of L-GreCo (arXiv 2210.17357, section 4).

    minimise     sum over layers of size_l b_l                    bits sent
    over         b_l in BITS
    subject to   sum over layers of error_l(b_l) <= budget

The budget is cut into STEPS steps and errors are rounded up to whole ones, so that what is found keeps to the budget;
over whole steps it is the least, by D(l, e) = min over b of  size_l b + D(l + 1, e - error_l(b)).
"""

from collections.abc import Sequence

import numpy as np

BITS = (1, 2, 3, 4, 6, 8, 16)
STEPS = 4000


def least_bits(sizes: Sequence[int], errors: Sequence[Sequence[float]], budget: float) -> tuple[int, ...]:
    """Give the bits of each layer that send least within a budget of errors; the finest where nothing keeps to it.

    Args:
        sizes: values of each layer.
        errors: what each layer errs at each of BITS.
        budget: of all errors together.

    """
    steps = [[int(np.ceil(error / budget * STEPS - 1e-9)) for error in own] for own in errors]
    least = np.zeros(STEPS + 1)
    choices = np.zeros((len(sizes), STEPS + 1), dtype=np.int64)
    for layer in range(len(sizes) - 1, -1, -1):
        options = np.full((len(BITS), STEPS + 1), np.inf)
        for option, (bits, step) in enumerate(zip(BITS, steps[layer], strict=True)):
            if step <= STEPS:
                options[option, step:] = sizes[layer] * bits + least[: STEPS + 1 - step]
        choices[layer], least = options.argmin(axis=0), options.min(axis=0)
    if not np.isfinite(least[STEPS]):
        return (BITS[-1],) * len(sizes)
    chosen, left = [], STEPS
    for layer in range(len(sizes)):
        option = int(choices[layer, left])
        chosen.append(BITS[option])
        left -= steps[layer][option]
    return tuple(chosen)
