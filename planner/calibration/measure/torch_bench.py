"""A bench of PyTorch: any accelerator that it drives, or its processor to try things out.

PyTorch is optional and heavy; it is imported when a bench is opened.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.catalog.names import canonical_name
from meshwright.catalog.precision import Precision
from meshwright.planner.calibration.measure.bench import AttentionShape, LayerProduct, Product
from meshwright.planner.calibration.measure.stopwatch import Stopwatch
from meshwright.planner.calibration.measure.torch_collectives import time_collectives
from meshwright.planner.calibration.timing import Collective

ACCELERATORS = ("cuda", "npu")
PROCESSOR = "cpu"
PROCESSOR_MEMORY_BYTES = 4 * 2**30
DTYPES = {Precision.BF16: "bfloat16", Precision.FP16: "float16", Precision.FP32: "float32"}


def open_bench(device_name: str, *, kind: str | None = None) -> "TorchBench":
    """Open this machine's accelerator.

    Args:
        device_name: catalog name of the device that it should be.
        kind: "cuda" (AMD's devices too), "npu" or "cpu"; the accelerator that is there where it is left out.

    Raises MeshwrightError where PyTorch or an accelerator is missing, and InputError where the accelerator is another
    device than it should be.

    """
    torch = _load_torch()
    found = kind or next((each for each in ACCELERATORS if _is_there(torch, each)), None)
    if found is None or (found != PROCESSOR and not _is_there(torch, found)):
        raise MeshwrightError(
            f"PyTorch {torch.__version__} sees no {found or 'accelerator'} on this machine",
            hint="install the build of PyTorch for this machine's devices, or give timings made elsewhere as files",
        )
    bench = TorchBench(torch, found)
    if found != PROCESSOR:
        _require_is(bench.name, device_name)
    return bench


def _load_torch() -> Any:  # noqa: ANN401 - a module that may not be there has no type
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise MeshwrightError(
            "measuring needs PyTorch, which isn't installed here",
            hint="pip install 'meshwright[measure]', with the build of PyTorch for this machine's devices",
        ) from None
    try:
        importlib.import_module("torch_npu")
    except ImportError:
        return torch  # no Ascend device, or none that PyTorch can drive
    return torch


def _is_there(torch: Any, kind: str) -> bool:  # noqa: ANN401
    module = getattr(torch, kind, None)
    return module is not None and bool(module.is_available())


def _require_is(found: str, device_name: str) -> None:
    """Raise InputError where a driver's name ("NVIDIA H100 80GB HBM3") isn't that of a catalog's device."""
    words = device_name.split("-")
    chip = canonical_name("".join(words[:2]) if words[0] == "ascend" else words[0])
    if chip not in canonical_name(found):
        raise InputError(
            f"this machine's device is {found!r:.60}, not {device_name}",
            path="--device",
            hint="`meshwright catalog devices` lists the names of devices",
        )


class TorchBench:
    """One kind of device, as PyTorch calls it. Buffers hold random numbers, since the power drawn depends on them."""

    def __init__(self, torch: Any, kind: str, *, clock: Callable[[], float] = time.perf_counter) -> None:  # noqa: ANN401
        self._torch = torch
        self._kind = kind
        self._module = getattr(torch, kind)
        self._watch = Stopwatch(clock=clock, synchronize=self._module.synchronize)

    @property
    def name(self) -> str:
        """What the driver calls the device."""
        return PROCESSOR if self._kind == PROCESSOR else str(self._module.get_device_name(0))

    @property
    def memory_bytes(self) -> int:
        """Memory of one device that is free."""
        return PROCESSOR_MEMORY_BYTES if self._kind == PROCESSOR else int(self._module.mem_get_info(0)[0])

    @property
    def devices(self) -> int:
        """How many devices this machine has; its processor counts as two, since gloo runs it as several."""
        return 2 if self._kind == PROCESSOR else int(self._module.device_count())

    def product_s(self, product: LayerProduct) -> float:
        """Time a product whose operands lie as PyTorch's linear layer leaves them: weights as [outputs, inputs]."""
        torch = self._torch
        inputs = self._random(product.precision, product.tokens, product.inputs)
        weights = self._random(product.precision, product.outputs, product.inputs)
        gradients = self._random(product.precision, product.tokens, product.outputs)
        left, right = {
            Product.FORWARD: (inputs, weights.t()),
            Product.DATA_GRADIENT: (gradients, weights),
            Product.WEIGHT_GRADIENT: (gradients.t(), inputs),
        }[product.product]
        rows, columns, _ = product.sizes
        result = self._random(product.precision, rows, columns)
        return self._watch.time_s(lambda: torch.mm(left, right, out=result))

    def attention_s(self, shape: AttentionShape) -> tuple[float, float]:
        """Time PyTorch's fused causal attention, forward and backward."""
        torch = self._torch
        attend = torch.nn.functional.scaled_dot_product_attention
        sizes = (shape.batch, shape.heads, shape.sequence_length, shape.head_dim)
        operands = tuple(self._random(shape.precision, *sizes).requires_grad_() for _ in range(3))
        gradient = self._random(shape.precision, *sizes)
        with torch.no_grad():
            forward_s = self._watch.time_s(lambda: attend(*operands, is_causal=True))
        output = attend(*operands, is_causal=True)
        backward_s = self._watch.time_s(lambda: torch.autograd.grad(output, operands, gradient, retain_graph=True))
        return forward_s, backward_s

    def copy_s(self, copied_bytes: int) -> float:
        """Time a copy from one buffer to another."""
        source = self._torch.zeros(copied_bytes, dtype=self._torch.uint8, device=self._kind)
        target = self._torch.empty_like(source)
        return self._watch.time_s(lambda: target.copy_(source))

    def collectives_s(self, sizes: tuple[tuple[Collective, int], ...], *, ranks: int) -> tuple[float, ...]:
        """Time collectives between processes of their own, one a device."""
        return time_collectives(self._torch, self._kind, sizes, ranks=ranks)

    def _random(self, precision: Precision, *sizes: int) -> Any:  # noqa: ANN401 - a tensor
        dtype = getattr(self._torch, DTYPES[precision])
        return self._torch.randn(*sizes, dtype=dtype, device=self._kind)
