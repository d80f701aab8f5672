"""Communication beside compute: what doesn't fit beside it is exposed, and what does slows it.

A collective takes compute units and memory bandwidth, so that compute beside it takes `contention` times as long: in m
seconds of communication only m / contention seconds of it are done. Compute of c seconds beside it takes

    max(m, c + (1 - 1 / contention) m)
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray


def exposed_s(
    message_s: FloatArray, room_s: FloatArray, contention: float, *, tail_s: FloatArray | float = 0.0
) -> FloatArray:
    """Give by how many seconds communication lengthens the compute that it runs beside.

    Args:
        message_s: the communication.
        room_s: the compute that it can run beside.
        contention: factor by which that compute slows meanwhile.
        tail_s: the part of the communication that can't start before the compute ends, or ends before it starts.

    """
    beside_s = message_s - tail_s
    return tail_s + np.maximum(beside_s - room_s, (1.0 - 1.0 / contention) * beside_s)
