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
