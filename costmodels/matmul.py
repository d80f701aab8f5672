"""Time of a matrix product on a device.

A product of m x k by k x n is 2 m n k operations. Three things keep it from the peak:

- pipelines and clocks: large products reach `matmul_ceiling` of the peak;
- depth: a tile spends time on its prologue and epilogue, worth `matmul_half_depth` columns of k;
- waves: tiles are dealt to the compute units in waves, and the last wave is half empty on average, so a product of
  `tiles`
  smallest full-rate tiles costs tiles / units + 1/2 waves.

    t_compute = 2 m n (k + half_depth) (1 + units tile_rows tile_columns / (2 m n)) / (ceiling peak)
    t_memory  = (operand bytes (m k + k n) + result bytes m n) / (streaming bandwidth)
    t         = sqrt(t_compute^2 + t_memory^2) + kernel_latency

The two overlap, but not perfectly: the root of the sum of squares is the longer of them where they differ much, and
more where they don't. That matters to the products of many experts with few rows each, of which 108 measured on B200
(SimuMax) take 1 to 1.6 times the longer of the two. A product that adds to its result reads and writes 8 bytes of each
fp32 element, not 2: of 36 weight gradients of experts and 226 of dense layers timed there the law is between 2 % under
and 9 % over, and within 1 %, at the median with 0.8 to 0.65 of the bandwidth; what adding up moves on top of the
product, instead of beside its computing, would be 13 to 21 % and 9 to 12 % over.

On 5,200 bf16 products measured on A100, H100, H200, B200 and GB200 (aiconfigurator-core 0.12.0) this law has a median
error of 5 to 8 %; counting waves exactly over four tile shapes has the same error, and is not monotone.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.power import slowdown
from meshwright.hardware.device import Device

NARROW = frozenset({Precision.FP8, Precision.MXFP8, Precision.NVFP4})

RESULT_BYTES = 2
# Bytes of an operand's element with its share of scales: one byte a block of 32 (OCP microscaling formats 1.0, section
# 5.2), of 16 for NVFP4 (arXiv 2509.25149, section 2); the scale of a whole tensor weighs nothing.
OPERAND_BYTES = {
    Precision.FP32: 4.0,
    Precision.FP16: 2.0,
    Precision.BF16: 2.0,
    Precision.FP8: 1.0,
    Precision.MXFP8: 1.0 + 1.0 / 32.0,
    Precision.NVFP4: 0.5 + 1.0 / 16.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Matmul:
    """A product [rows, inner] x [inner, columns], for `count` independent pairs (experts, heads) in one launch.

    Each is an array that broadcasts to the shape of the others; a fractional size is the mean over devices.

    wide: it stays in 16 bits where the job's format is narrower.
    result_bytes: what it moves of each element of its result, which it writes, and reads first where it adds to it.
    """

    rows: FloatArray
    columns: FloatArray
    inner: FloatArray
    count: FloatArray
    wide: bool = False
    result_bytes: int = RESULT_BYTES

    @property
    def flop(self) -> FloatArray:
        """Operations of all pairs."""
        return 2.0 * self.count * self.rows * self.columns * self.inner

    @property
    def data_gradient(self) -> Self:
        """The product that makes the gradient of its left operand."""
        return replace(self, columns=self.inner, inner=self.columns)

    def weight_gradient(self, result_bytes: int = RESULT_BYTES) -> Self:
        """Give the product that makes the gradient of its right operand."""
        return replace(self, rows=self.inner, inner=self.rows, result_bytes=result_bytes)


def wide_precision(precision: Precision) -> Precision:
    """Give the format of what narrow recipes leave as it is: 16 bits where the job's own is narrower.

    That is the attention core, the head and the router (arXiv 2412.19437, section 3.3.1; arXiv 2509.25149, section 3;
    torchtitan's docs/float8.md leaves the output out); the layers' other products are narrow.
    """
    return Precision.BF16 if precision in NARROW else precision


def product_precision(precision: Precision, product: Matmul) -> Precision:
    """Give the format in which a job of some precision computes a product."""
    return wide_precision(precision) if product.wide else precision


def matmul_time_s(device: Device, precision: Precision, product: Matmul) -> FloatArray:
    """Give the seconds of one product, of the common shape of its sizes.

    Raises MissingData where the device has no peak for the precision.
    """
    calibration = device.calibration
    ceiling = calibration.matmul_ceiling
    if precision in NARROW:
        ceiling = calibration.narrow_matmul_ceiling or calibration.matmul_ceiling
    area = product.count * product.rows * product.columns
    tile_area = device.tile_rows * device.tile_columns
    waves = 1.0 + 0.5 * device.compute_units * tile_area / np.maximum(area, 1.0)
    depth = product.inner + calibration.matmul_half_depth
    compute_s = 2.0 * area * depth * waves / (ceiling * device.peak(precision))
    compute_s = compute_s * slowdown(device, product.inner / (depth * waves))
    operands = product.count * product.inner * (product.rows + product.columns)
    moved_bytes = OPERAND_BYTES[precision] * operands + product.result_bytes * area
    memory_s = moved_bytes / (calibration.streaming * device.memory_bandwidth_bytes_per_s)
    return np.where(product.flop > 0, np.hypot(compute_s, memory_s) + calibration.kernel_latency, 0.0)
