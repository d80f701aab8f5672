"""Number formats that training runs in."""

from enum import StrEnum


class Precision(StrEnum):
    """The format of the matrix products; everything else follows the framework's mixed-precision recipe."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    MXFP8 = "mxfp8"
    NVFP4 = "nvfp4"


class PrecisionClass(StrEnum):
    """Formats that err alike: the narrow ones depend on recipes that tables don't print."""

    WIDE = "32-bit"
    HALF = "16-bit"
    NARROW = "narrower"


PRECISION_CLASSES = {
    Precision.FP32: PrecisionClass.WIDE,
    Precision.BF16: PrecisionClass.HALF,
    Precision.FP16: PrecisionClass.HALF,
    Precision.FP8: PrecisionClass.NARROW,
    Precision.MXFP8: PrecisionClass.NARROW,
    Precision.NVFP4: PrecisionClass.NARROW,
}
