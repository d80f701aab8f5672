"""Measuring a machine: with a bench and a clock that are made up, and with a stand-in for PyTorch."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.catalog.precision import Precision
from meshwright.hardware.cluster import Cluster
from meshwright.planner.calibration.measure.bench import AttentionShape, LayerProduct, Product
from meshwright.planner.calibration.measure.measure import Grid, Piece, group_sizes, measure
from meshwright.planner.calibration.measure.stopwatch import Stopwatch
from meshwright.planner.calibration.measure.torch_bench import TorchBench, open_bench
from meshwright.planner.calibration.timing import (
    AttentionTiming,
    Collective,
    CollectiveTiming,
    CopyTiming,
    MatmulTiming,
    Pass,
    Timing,
)

GRID = Grid(
    tokens=(100,),
    layers=((20, 30),),
    precisions=(Precision.BF16, Precision.NVFP4),
    heads=((2, 8),),
    sequence_lengths=(64,),
    attention_tokens=128,
    copied_bytes=(1000,),
    exchanged_bytes=(1000,),
)


@dataclass
class ToyBench:
    """A microsecond for each thing, and what was asked for."""

    memory_bytes: int = 10**9
    devices: int = 4
    asked: list[tuple[int, tuple[tuple[Collective, int], ...]]] = field(default_factory=list)

    def product_s(self, product: LayerProduct) -> float:
        return product.flop * 1e-6

    def attention_s(self, shape: AttentionShape) -> tuple[float, float]:
        return 1e-6 * shape.batch, 2e-6 * shape.batch

    def copy_s(self, copied_bytes: int) -> float:
        return copied_bytes * 1e-6

    def collectives_s(self, sizes: tuple[tuple[Collective, int], ...], *, ranks: int) -> tuple[float, ...]:
        self.asked.append((ranks, sizes))
        return tuple(ranks * 1e-6 * place for place in range(1, len(sizes) + 1))


@pytest.fixture
def measured(round_cluster: Callable[..., Cluster]) -> Callable[..., tuple[Timing, ...]]:
    """Measure with a bench; the round device has 100 TFLOP/s at 16 bits, and no nvfp4."""
    return lambda bench, grid=GRID: measure(bench, round_cluster().device, grid=grid)


def test_the_three_products_of_a_layer_have_their_own_shapes(measured: Callable[..., tuple[Timing, ...]]) -> None:
    products = [timing for timing in measured(ToyBench()) if isinstance(timing, MatmulTiming)]
    assert [(timing.rows, timing.columns, timing.inner) for timing in products] == [
        (100, 30, 20),
        (100, 20, 30),
        (30, 20, 100),
    ]
    assert {timing.precision for timing in products} == {Precision.BF16}  # the device has no nvfp4
    assert {timing.time_s for timing in products} == {2 * 100 * 20 * 30 * 1e-6}


def test_both_passes_of_attention_are_told_apart(measured: Callable[..., tuple[Timing, ...]]) -> None:
    forward, backward = (timing for timing in measured(ToyBench()) if isinstance(timing, AttentionTiming))
    assert (forward.batch, forward.heads, forward.head_dim, forward.sequence_length) == (2, 2, 8, 64)
    assert (forward.through, forward.time_s) == (Pass.FORWARD, 2e-6)
    assert (backward.through, backward.time_s) == (Pass.BACKWARD, 4e-6)


def test_a_copy_reads_and_writes(measured: Callable[..., tuple[Timing, ...]]) -> None:
    (copy,) = (timing for timing in measured(ToyBench()) if isinstance(timing, CopyTiming))
    assert (copy.moved_bytes, copy.time_s) == (2000, pytest.approx(1e-3))


def test_collectives_run_over_groups_of_all_sizes(measured: Callable[..., tuple[Timing, ...]]) -> None:
    bench = ToyBench(devices=6)
    found = [timing for timing in measured(bench) if isinstance(timing, CollectiveTiming)]
    assert [ranks for ranks, _ in bench.asked] == [2, 4, 6]
    assert len(found) == 3 * len(Collective)
    # Of 1,000 bytes what can be shared evenly by 6 in elements of 2 bytes.
    assert {timing.whole_bytes for timing in found if timing.ranks == 6} == {996}
    assert [timing.time_s for timing in found if timing.ranks == 6] == pytest.approx([6e-6, 12e-6, 18e-6, 24e-6, 30e-6])
    assert {timing.nodes for timing in found} == {1}


@pytest.mark.parametrize(("devices", "sizes"), [(1, ()), (2, (2,)), (3, (2, 3)), (8, (2, 4, 8)), (16, (2, 4, 8, 16))])
def test_group_sizes(devices: int, sizes: tuple[int, ...]) -> None:
    assert group_sizes(devices) == sizes


def test_what_takes_too_long_or_too_much_memory_is_left_out(measured: Callable[..., tuple[Timing, ...]]) -> None:
    # 100 TFLOP/s for 0.1 s are 10^13 operations; 2 x 10^4 x 2^15 x 2^15 are more, with 2^14 they are fewer.
    grid = Grid(tokens=(10_000,), layers=((2**15, 2**15), (2**14, 2**14)), heads=(), copied_bytes=(10**9,))
    found = measured(ToyBench(memory_bytes=10**10, devices=1), grid)
    assert {timing.columns for timing in found if isinstance(timing, MatmulTiming)} == {2**14}
    # Half a gigabyte has no room for the operands, nor for two buffers of one.
    assert measured(ToyBench(memory_bytes=10**9, devices=1), grid) == ()


def test_a_watch_sees_every_piece(round_cluster: Callable[..., Cluster]) -> None:
    seen = []

    def watch(pieces: Sequence[Piece]) -> Iterator[Piece]:
        seen.append(len(pieces))
        yield from pieces

    timings = measure(ToyBench(devices=2), round_cluster().device, grid=GRID, watch=watch)
    assert seen == [3 + 1 + 1 + 1]
    assert len(timings) == 3 + 2 + 1 + len(Collective)


class ToyClock:
    """A device that works off its queue when it is waited for; the first launches take longer."""

    def __init__(self, times_s: Callable[[int], float]) -> None:
        self.now_s, self.queued_s, self.launches = 100.0, 0.0, 0
        self.times_s = times_s

    def launch(self) -> None:
        self.queued_s += self.times_s(self.launches)
        self.launches += 1

    def synchronize(self) -> None:
        self.now_s += self.queued_s
        self.queued_s = 0.0

    def watch(self, **changes: Any) -> Stopwatch:  # noqa: ANN401
        return Stopwatch(clock=lambda: self.now_s, synchronize=self.synchronize, **changes)


def test_warm_up_and_hiccups_do_not_count() -> None:
    # Three slow launches, then 1 ms each, but every 64th, in one batch of seven, takes 100 times as long.
    clock = ToyClock(lambda launch: 1.0 if launch < 3 else 0.1 if launch % 64 == 63 else 1e-3)
    assert clock.watch().time_s(clock.launch) == pytest.approx(1e-3)


def test_batches_last_long_enough_for_the_clock() -> None:
    clock = ToyClock(lambda _: 1e-4)
    assert clock.watch(batch_s=0.01, batches=7).time_s(clock.launch) == pytest.approx(1e-4)
    assert clock.launches == pytest.approx(3 + 1 + 7 * 100, abs=7)
    quick = ToyClock(lambda _: 0.0)
    assert quick.watch(most_repeats=50).time_s(quick.launch) == 0.0
    assert quick.launches == 3 + 1 + 7 * 50


def test_processes_launch_as_often_as_they_agree_to() -> None:
    clock = ToyClock(lambda _: 1e-4)
    clock.watch(batch_s=0.01, batches=7, agree=lambda own_s: 5 * own_s).time_s(clock.launch)
    assert clock.launches == 3 + 1 + 7 * 20


class ToyTensor:
    """A tensor that knows its shape, and whether its rows lie in memory one after the other."""

    def __init__(self, *shape: int, transposed: bool = False) -> None:
        self.shape, self.transposed = shape, transposed

    def t(self) -> "ToyTensor":
        return ToyTensor(*reversed(self.shape), transposed=not self.transposed)

    def requires_grad_(self) -> "ToyTensor":
        return self

    def copy_(self, source: "ToyTensor") -> None:
        assert source.shape == self.shape


def toy_torch(name: str = "NVIDIA H100 80GB HBM3", **changes: object) -> SimpleNamespace:
    """A stand-in for PyTorch that keeps what it was asked to multiply, and differentiate."""
    calls: list[tuple[ToyTensor, ...]] = []
    gradients: list[object] = []

    def tensor(*shape: int, dtype: str, device: str) -> ToyTensor:
        assert dtype in {"bf16", "fp16", "u8"}
        assert device in {"cuda", "cpu"}
        return ToyTensor(*shape)

    def multiply(left: ToyTensor, right: ToyTensor, *, out: ToyTensor) -> None:
        assert left.shape[1] == right.shape[0]
        assert out.shape == (left.shape[0], right.shape[1])
        calls.append((left, right))

    def attend(*operands: ToyTensor, is_causal: bool) -> ToyTensor:
        assert is_causal
        return operands[0]

    def differentiate(output: ToyTensor, operands: object, gradient: ToyTensor, *, retain_graph: bool) -> None:
        assert retain_graph
        assert gradient.shape == output.shape
        gradients.append(operands)

    cuda = SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda: None,
        get_device_name=lambda _: name,
        device_count=lambda: 8,
        mem_get_info=lambda _: (70 * 10**9, 80 * 10**9),
    )
    parts = {
        "__version__": "2.13.0",
        "bfloat16": "bf16",
        "float16": "fp16",
        "uint8": "u8",
        "cuda": cuda,
        "cpu": SimpleNamespace(is_available=lambda: True, synchronize=lambda: None),
        "mm": multiply,
        "randn": tensor,
        "zeros": tensor,
        "empty_like": lambda tensor: ToyTensor(*tensor.shape),
        "no_grad": nullcontext,
        "nn": SimpleNamespace(functional=SimpleNamespace(scaled_dot_product_attention=attend)),
        "autograd": SimpleNamespace(grad=differentiate),
        "calls": calls,
        "gradients": gradients,
    }
    return SimpleNamespace(**(parts | changes))


def ticking() -> Callable[[], float]:
    """A clock on which whatever lies between two looks takes a millisecond."""
    looks = iter(range(10**9))
    return lambda: next(looks) * 1e-3


@pytest.mark.parametrize(
    ("product", "left", "right"),
    [
        (Product.FORWARD, ((5, 6), False), ((6, 7), True)),
        (Product.DATA_GRADIENT, ((5, 7), False), ((7, 6), False)),
        (Product.WEIGHT_GRADIENT, ((7, 5), True), ((5, 6), False)),
    ],
)
def test_operands_lie_as_a_linear_layer_leaves_them(product: Product, left: object, right: object) -> None:
    torch = toy_torch()
    layer = LayerProduct(product=product, tokens=5, inputs=6, outputs=7, precision=Precision.BF16)
    time_s = TorchBench(torch, "cuda", clock=ticking()).product_s(layer)
    assert time_s == pytest.approx(1e-3 / 10)  # ten launches a batch of a millisecond
    operands = {tuple((tensor.shape, tensor.transposed) for tensor in call) for call in torch.calls}
    assert operands == {(left, right)}


def test_attention_is_timed_forward_and_backward() -> None:
    torch = toy_torch()
    shape = AttentionShape(batch=2, heads=3, head_dim=4, sequence_length=5, precision=Precision.FP16)
    assert TorchBench(torch, "cuda", clock=ticking()).attention_s(shape) == pytest.approx((1e-4, 1e-4))
    assert {tuple(tensor.shape for tensor in operands) for operands in torch.gradients} == {((2, 3, 5, 4),) * 3}


def test_a_bench_tells_its_memory_and_devices() -> None:
    bench = TorchBench(toy_torch(), "cuda")
    assert (bench.name, bench.memory_bytes, bench.devices) == ("NVIDIA H100 80GB HBM3", 70 * 10**9, 8)
    assert bench.copy_s(100) >= 0.0


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Put a stand-in in PyTorch's place, or None for no PyTorch at all."""

    def install(torch: object) -> None:
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "torch_npu", None)

    return install


def test_missing_pytorch_is_one_error_that_says_how_to_get_it(installed: Callable[[object], None]) -> None:
    installed(None)
    with pytest.raises(MeshwrightError, match="measuring needs PyTorch") as caught:
        open_bench("h100-sxm-80gb")
    assert "pip install 'meshwright[measure]'" in caught.value.hint


@pytest.mark.parametrize("kind", [None, "npu", "cuda"])
def test_a_machine_without_accelerators_is_refused(installed: Callable[[object], None], kind: str | None) -> None:
    installed(toy_torch(cuda=SimpleNamespace(is_available=lambda: False)))
    with pytest.raises(MeshwrightError, match=r"PyTorch 2\.13\.0 sees no (accelerator|npu|cuda) on this machine"):
        open_bench("h100-sxm-80gb", kind=kind)


@pytest.mark.parametrize(
    ("driver", "device"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA GB200", "gb200-nvl72"),
        ("AMD Instinct MI250X", "mi250x-gcd"),
        ("Ascend910B3", "ascend-910b"),
    ],
)
def test_the_machines_device_is_known_by_the_drivers_name(
    installed: Callable[[object], None], driver: str, device: str
) -> None:
    installed(toy_torch(driver))
    assert open_bench(device).name == driver
    installed(toy_torch("NVIDIA L40S"))
    with pytest.raises(InputError, match=f"this machine's device is 'NVIDIA L40S', not {device}"):
        open_bench(device)


def test_ascend_devices_come_with_a_module_of_their_own(
    installed: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    npu = toy_torch("Ascend910B3").cuda
    installed(toy_torch(cuda=SimpleNamespace(is_available=lambda: False), npu=npu))
    monkeypatch.setitem(sys.modules, "torch_npu", ModuleType("torch_npu"))
    assert open_bench("ascend-910b").name == "Ascend910B3"


def test_the_processor_is_a_bench_only_where_it_is_asked_for(installed: Callable[[object], None]) -> None:
    installed(toy_torch(cuda=SimpleNamespace(is_available=lambda: False)))
    assert open_bench("h100-sxm-80gb", kind="cpu").name == "cpu"
