"""Communication beside compute: what doesn't fit beside it is exposed, and what does slows it.

A collective takes compute units and memory bandwidth, so that compute beside it takes `contention` times as long: t
seconds of hidden communication cost (contention - 1) t.
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
        tail_s: the part of the communication that can't start before the compute ends.

    """
    exposed = np.maximum(message_s - room_s, tail_s)
    return exposed + (contention - 1.0) * (message_s - exposed)
