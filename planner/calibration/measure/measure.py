"""Timing a machine: a grid of shapes that training has, as far as the device can do them in little time and memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from meshwright.catalog.precision import Precision
from meshwright.hardware.device import Device
from meshwright.planner.calibration.measure.bench import AttentionShape, Bench, LayerProduct, Product
from meshwright.planner.calibration.timing import (
    AttentionTiming,
    Collective,
    CollectiveTiming,
    CopyTiming,
    MatmulTiming,
    Pass,
    Timing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What to time.

    layers: (inputs, outputs) of linear layers; attention: (heads, width) by sequence length, `attention_tokens` in all.
    copied_bytes, exchanged_bytes: from what a kernel's latency hides to what leaves all caches.
    """

    tokens: tuple[int, ...] = (256, 1024, 4096, 16384)
    layers: tuple[tuple[int, int], ...] = (
        (1024, 1024),
        (1024, 4096),
        (4096, 1024),
        (4096, 4096),
        (4096, 14336),
        (8192, 1024),
        (8192, 8192),
        (8192, 28672),
    )
    precisions: tuple[Precision, ...] = (Precision.BF16, Precision.FP16)
    heads: tuple[tuple[int, int], ...] = ((16, 64), (16, 128), (32, 128))
    sequence_lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384)
    attention_tokens: int = 16384
    copied_bytes: tuple[int, ...] = tuple(2**power for power in (12, 16, 20, 22, 24, 26, 28, 30))
    exchanged_bytes: tuple[int, ...] = tuple(2**power for power in (12, 16, 18, 20, 22, 24, 26, 28, 30))


# No launch takes longer than this at the peak, so that the whole grid takes minutes.
LONGEST_AT_PEAK_S = 0.1
MEMORY_SHARE = 0.5

Piece = Callable[[], Sequence[Timing]]
Watch = Callable[[Sequence[Piece]], Iterable[Piece]]


def measure(bench: Bench, device: Device, *, grid: Grid | None = None, watch: Watch = iter) -> tuple[Timing, ...]:
    """Time a machine whose devices are `device`.

    Args:
        bench: what times it.
        device: its peaks decide which precisions there are, and which shapes take too long.
        grid: what to time, the usual grid where it is left out.
        watch: given all pieces of the work, hands them on one by one; a progress bar does.

    """
    return tuple(timing for piece in watch(list(_pieces(bench, device, grid or Grid()))) for timing in piece())


def _pieces(bench: Bench, device: Device, grid: Grid) -> Iterator[Piece]:
    room_bytes = MEMORY_SHARE * min(bench.memory_bytes, device.memory_bytes)
    for precision in (each for each in grid.precisions if each in device.peak_flop_per_s):
        most_flop = LONGEST_AT_PEAK_S * device.peak(precision)
        for layer in _products(grid, precision):
            if layer.flop <= most_flop and 2 * layer.elements <= room_bytes:
                yield _product_piece(bench, layer)
        for shape in _shapes(grid, precision):
            if shape.flop <= most_flop and 2 * shape.elements <= room_bytes:
                yield _attention_piece(bench, shape)
    for size in grid.copied_bytes:
        if 2 * size <= room_bytes:
            yield _copy_piece(bench, size)
    exchanged = tuple(size for size in grid.exchanged_bytes if 4 * size <= room_bytes)
    yield from (_collective_piece(bench, exchanged, ranks) for ranks in group_sizes(bench.devices))


def group_sizes(devices: int) -> tuple[int, ...]:
    """Give the groups over which collectives are timed: the powers of two, and all devices."""
    powers = [2**power for power in range(1, devices.bit_length()) if 2**power < devices]
    return (*powers, devices) if devices > 1 else ()


def _products(grid: Grid, precision: Precision) -> Iterator[LayerProduct]:
    for tokens, (inputs, outputs), kind in product(grid.tokens, grid.layers, Product):
        yield LayerProduct(product=kind, tokens=tokens, inputs=inputs, outputs=outputs, precision=precision)


def _shapes(grid: Grid, precision: Precision) -> Iterator[AttentionShape]:
    for (heads, head_dim), length in product(grid.heads, grid.sequence_lengths):
        batch = max(grid.attention_tokens // length, 1)
        yield AttentionShape(batch=batch, heads=heads, head_dim=head_dim, sequence_length=length, precision=precision)


def _product_piece(bench: Bench, layer: LayerProduct) -> Piece:
    def time() -> tuple[Timing, ...]:
        rows, columns, inner = layer.sizes
        return (
            MatmulTiming(
                rows=rows,
                columns=columns,
                inner=inner,
                precision=layer.precision,
                time_s=bench.product_s(layer),
                place=f"{layer.product} product {rows} x {columns} x {inner}, {layer.precision}",
            ),
        )

    return time


def _attention_piece(bench: Bench, shape: AttentionShape) -> Piece:
    def time() -> tuple[Timing, ...]:
        return tuple(
            AttentionTiming(
                batch=shape.batch,
                heads=shape.heads,
                kv_heads=shape.heads,
                head_dim=shape.head_dim,
                sequence_length=shape.sequence_length,
                precision=shape.precision,
                through=through,
                time_s=time_s,
                place=f"attention {through}, {shape.batch} x {shape.sequence_length} tokens, "
                f"{shape.heads} heads of {shape.head_dim}, {shape.precision}",
            )
            for through, time_s in zip(Pass, bench.attention_s(shape), strict=True)
        )

    return time


def _copy_piece(bench: Bench, size: int) -> Piece:
    return lambda: (CopyTiming(moved_bytes=2 * size, time_s=bench.copy_s(size), place=f"copy of {size:,} bytes"),)


def _collective_piece(bench: Bench, sizes: tuple[int, ...], ranks: int) -> Piece:
    def time() -> tuple[Timing, ...]:
        # A buffer is parted evenly among the ranks, in elements of 16 bits.
        wanted = tuple((which, max(size // (2 * ranks), 1) * 2 * ranks) for which in Collective for size in sizes)
        return tuple(
            CollectiveTiming(
                collective=which,
                ranks=ranks,
                nodes=1,
                whole_bytes=size,
                time_s=time_s,
                place=f"{which} of {size:,} bytes over {ranks} devices",
            )
            for (which, size), time_s in zip(wanted, bench.collectives_s(wanted, ranks=ranks), strict=True)
        )

    return time
