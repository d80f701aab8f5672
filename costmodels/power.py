"""How far the clock falls under a limit of power below the one that a device's constants were measured at.

A device that multiplies matrices during a share u of the time, at a clock f of its nominal one, draws

    P = idle + (full_rate - idle) u f^exponent

The voltage falls with the clock, so that the exponent lies between 1 (constant voltage) and 3 (voltage in proportion).
What P exceeds the limit by is taken off the clock: f^exponent = (limit - idle) / ((full_rate - idle) u). Constants that
were measured at a limit of their own hold that clock already, so that products slow down by the ratio of the two:

    slowdown = (min(reference - idle, (full_rate - idle) u) / (limit - idle))^(1 / exponent), at least 1
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.hardware.device import Device


def slowdown(device: Device, busy: FloatArray | float) -> FloatArray | float:
    """Give how much longer matrix units take under the device's limit of power than at the one of its constants.

    Args:
        device: the device; where nothing is known of how its clock follows power, the constants are of its own limit.
        busy: share of the time in which matrix units multiply, 0 to 1, any shape.

    """
    scaling = device.power_scaling
    if scaling is None:
        return 1.0
    drawn_w = np.minimum(scaling.reference - scaling.idle, (scaling.full_rate - scaling.idle) * busy)
    return np.maximum(drawn_w / (device.power_w - scaling.idle), 1.0) ** (1.0 / scaling.exponent)
