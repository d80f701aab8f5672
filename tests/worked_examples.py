"""The worked example of each page of `docs/`, from the constants of the catalog; `refresh.py docs` writes them there.

Each ends in what the cost model's functions say; `test_docs.py` holds the printed arithmetic to that.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pocket_calculator import Sheet, printed

from meshwright.catalog.lookup import device_named, find_cluster, find_model, stack_named
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.accumulation import accumulation_s
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.attention import core_backward_flop, core_flop, core_time_s
from meshwright.costmodels.collectives import Group, all_gather_s, all_reduce_s, ring_bus_bytes_per_s
from meshwright.costmodels.elementwise import elementwise_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time, products_time_s
from meshwright.costmodels.layer_work import attention_products, mlp_products
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.costmodels.packing import packing_s
from meshwright.costmodels.pipeline_bubble import LayerSeconds
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.schedule import held_micro_batches
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import stage_parameters
from meshwright.costmodels.state_messages import state_messages
from meshwright.costmodels.synchronisation import StageWork, exposed_communication_s
from meshwright.costmodels.transformer import transformer_of
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.hardware.cluster import cluster_of
from meshwright.hardware.device import device_of
from meshwright.planner.accuracy import load_cases


def job(
    model: str,
    cluster: str,
    *,
    batch: int,
    length: int,
    stack: str = "megatron-core",
    precision: Precision = Precision.BF16,
) -> Job:
    """Make a job of the catalog."""
    return Job(
        model=transformer_of(find_model(model)),
        cluster=cluster_of(find_cluster(cluster)),
        stack=stack_named(stack),
        precision=precision,
        global_batch=batch,
        sequence_length=length,
    )


def product(rows: float, columns: float, inner: float) -> Matmul:
    """Make one matrix product."""
    sizes = {"rows": rows, "columns": columns, "inner": inner, "count": 1.0}
    return Matmul(**{name: np.array([float(size)]) for name, size in sizes.items()})


def streaming(task: Job) -> str:
    """Write the rate of elementwise kernels."""
    device = task.cluster.device
    return f"({device.calibration.streaming:g} x {device.memory_bandwidth_bytes_per_s / 1e9:,.0f} GB/s)"


# The parts of a step, each the sum of some causes of the breakdown.
PARTS = {
    "work of the slowest stage": (
        *Cause,
        "recompute",
        "embedding_and_head",
        "gradient_accumulation",
    ),
    "pipeline": ("bubble", "pipeline_communication"),
    "end of the step": ("gradient_communication", "parameter_communication", "optimizer", "step_overhead"),
}


def step() -> str:
    """A step of Llama 3.1 70B on 64 H100s, cause by cause."""
    sheet, task = Sheet(), job("llama-3.1-70b", "dgx-h100:64", batch=128, length=8192)
    layout = Layout(
        tensor_parallel=4, sequence_parallel=True, pipeline_parallel=4, data_parallel=4, zero_stage=1, zero_shard=4
    )
    time = predict_time(task, LayoutTable.of([layout]))
    sums: list[str] = []
    for part, causes in PARTS.items():
        named = {str(cause): float(time.breakdown[cause][0]) for cause in causes}
        amounts = [
            sheet.given(cause.replace("_", " "), seconds, "s" if seconds >= 1 else "ms")
            for cause, seconds in named.items()
            if seconds > 0
        ]
        sums.append(sheet.line(part, " + ".join(amounts), "s"))
    step_s = sheet.line("step", " + ".join(sums), "s", by="predict_time", model=float(time.step_time_s[0]))
    sheet.line("tokens a second", f"128 x 8,192 / {step_s}")
    flop = sheet.given("operations of the model", time.model_flop, "TFLOP", by="model_flop")
    peak = printed(task.cluster.device.peak(Precision.BF16), "TFLOP/s")
    sheet.line("MFU", f"{flop} / {step_s} / (64 x {peak})", "%")
    return sheet.text()


def matrix_products() -> str:
    """Gate and up of Llama 3.1 8B's MLP, and what 8-bit operands change."""
    sheet, task = Sheet(), job("llama-3.1-8b", "dgx-h100:8", batch=8, length=8192)
    device, calibration = task.cluster.device, task.cluster.device.calibration
    rows, columns, inner = 8192, 28672, 4096
    shape = product(rows, columns, inner)
    half, latency = calibration.matmul_half_depth, printed(calibration.kernel_latency, "us")
    sheet.head("16 bits: m = 8,192 tokens, k = 4,096, n = 2 x 14,336 = 28,672, on one H100")
    flop = sheet.line("operations", "2 x 8,192 x 28,672 x 4,096", "TFLOP", by="flop", model=float(shape.flop[0]))
    depth = sheet.line("depth", f"(4,096 + {half:,}) / 4,096")
    tile = f"{device.compute_units} x {device.tile_rows} x {device.tile_columns}"
    waves = sheet.line("waves", f"1 + {tile} / (2 x 8,192 x 28,672)")

    def times(precision: Precision, ceiling: float, size: int) -> str:
        peak = printed(device.peak(precision), "TFLOP/s")
        compute = sheet.line("compute", f"{flop} x {depth} x {waves} / ({ceiling:g} x {peak})", "ms")
        operands = f"{size} x 4,096 x (8,192 + 28,672) + 2 x 8,192 x 28,672"
        memory = sheet.line("memory", f"({operands}) / {streaming(task)}", "ms")
        model = float(matmul_time_s(device, precision, shape)[0])
        return sheet.line(
            "time", f"sqrt(({compute})^2 + ({memory})^2) + {latency}", "ms", by="matmul_time_s", model=model
        )

    times(Precision.BF16, calibration.matmul_ceiling, 2)
    sheet.head("8 bits: twice the peak, one byte an operand, and the input to quantise")
    time = times(Precision.FP8, calibration.narrow_matmul_ceiling or calibration.matmul_ceiling, 1)
    quantise = sheet.line("quantise", f"(2 + 2 x 1) x 8,192 x 4,096 / {streaming(task)}", "ms")
    narrow = job("llama-3.1-8b", "dgx-h100:8", batch=8, length=8192, precision=Precision.FP8)
    model = float(products_time_s(narrow, (shape,))[0][0])
    sheet.line("forward", f"{time} + {quantise}", "ms", by="products_time_s", model=model)
    capped_product(sheet, shape, times=f"{flop} x {depth} x {waves}", busy=f"1 / ({depth} x {waves})")
    return sheet.text()


def capped_product(sheet: Sheet, shape: Matmul, *, times: str, busy: str) -> None:
    """Work out the product in 16 bits on a board with the same chip and a limit of 500 W."""
    device = device_of(device_named("h100-hbm2e-96gb-500w"))
    calibration, power = device.calibration, device.power_scaling
    if power is None:
        raise ValueError(device.name)
    sheet.head(f"16 bits again, on an H100 limited to {device.power_w:g} W")
    share = sheet.line("busy", busy)
    drawn = sheet.line(
        "drawn", f"min({power.reference:g} - {power.idle:g}, ({power.full_rate:g} - {power.idle:g}) x {share})"
    )
    slower = sheet.line(
        "slowdown", f"max({drawn} / ({device.power_w:g} - {power.idle:g}), 1)^(1 / {power.exponent:g})", by="slowdown"
    )
    peak, rate = printed(device.peak(Precision.BF16), "TFLOP/s"), f"{device.memory_bandwidth_bytes_per_s / 1e9:,.0f}"
    compute = sheet.line("compute", f"{times} / ({calibration.matmul_ceiling:g} x {peak}) x {slower}", "ms")
    operands = "2 x 4,096 x (8,192 + 28,672) + 2 x 8,192 x 28,672"
    memory = sheet.line("memory", f"({operands}) / ({calibration.streaming:g} x {rate} GB/s)", "ms")
    latency = printed(calibration.kernel_latency, "us")
    sheet.line(
        "time",
        f"sqrt(({compute})^2 + ({memory})^2) + {latency}",
        "ms",
        by="matmul_time_s",
        model=float(matmul_time_s(device, Precision.BF16, shape)[0]),
    )


def attention() -> str:
    """Fused attention of Llama 3.1 8B on an H100, unfused attention of GPT-3 on an A100."""
    sheet, task = Sheet(), job("llama-3.1-8b", "dgx-h100:8", batch=8, length=8192)
    device, calibration = task.cluster.device, task.cluster.device.calibration
    layer, single = task.model.layers[0].attention, LayoutTable.of([Layout()])
    forward_s, backward_s = (float(seconds[0]) for seconds in core_time_s(task, layer, single))
    latency = printed(calibration.kernel_latency, "us")
    sheet.head("Fused: 8,192 tokens, 32 heads of 128, on one H100")
    pairs = sheet.line("pairs", "8,192 x (8,192 - 8,192 / 2)")
    forward = sheet.line(
        "operations", f"2 x {pairs} x 32 x (128 + 128)", "TFLOP", by="core_flop", model=core_flop(task, layer)
    )
    backward = sheet.line(
        "operations backward",
        f"2 x {pairs} x 32 x (3 x 128 + 2 x 128)",
        "TFLOP",
        by="core_backward_flop",
        model=core_backward_flop(task, layer),
    )
    length = sheet.line("length", f"8,192 / (8,192 + {calibration.attention_half_length:,})")
    waves = sheet.line("waves", f"1 + 128 x {device.compute_units} / (8,192 x 32)")
    peak, lanes = (printed(device.peak(each), "TFLOP/s") for each in (Precision.BF16, Precision.FP32))
    exponentials = printed(device.exponentials_per_s or 0.0, "TFLOP/s")
    for name, flop, steps, share, seconds in (
        ("forward", forward, 2, calibration.attention_forward, forward_s),
        ("backward", backward, 3, calibration.attention_backward, backward_s),
    ):
        products = sheet.line("products", f"{flop} / ({peak})", "ms")
        one = f"(1 / ({exponentials}) + {steps} / ({lanes} / 2))"
        softmax = sheet.line("softmax", f"{pairs} x 32 x {one}", "ms")
        arithmetic = f"sqrt(({products})^2 + ({softmax})^2) / {share:g} / {length} x {waves} + {latency}"
        sheet.line(name, arithmetic, "ms", by="core_time_s", model=seconds)
    _unfused(sheet)
    return sheet.text()


def _unfused(sheet: Sheet) -> None:
    task = job("gpt3-175b", "selene:8", batch=8, length=2048, stack="megatron-lm-2021")
    device, calibration = task.cluster.device, task.cluster.device.calibration
    layouts = LayoutTable.of([Layout(tensor_parallel=8)])
    forward_s, backward_s = (
        float(seconds[0]) for seconds in core_time_s(task, task.model.layers[0].attention, layouts)
    )
    half, latency = calibration.matmul_half_depth, printed(calibration.kernel_latency, "us")
    rate = f"({calibration.matmul_ceiling:g} x {printed(device.peak(Precision.FP16), 'TFLOP/s')})"
    tile = f"{device.compute_units} x {device.tile_rows} x {device.tile_columns}"
    sheet.head("Unfused: 2,048 tokens, 12 of 96 heads of 128, dropout, on one of eight A100s")
    flop = sheet.line("operations of one product", "2 x 12 x 2,048 x 2,048 x 128", "GFLOP")
    memory = sheet.line("its memory", f"2 x 12 x 2,048 x (128 + 128 + 2,048) / {streaming(task)}", "ms")
    products: list[str] = []
    for name, inner, columns in (("scores", "128", "2,048"), ("values", "2,048", "128")):
        waves = sheet.line(f"waves of {name}", f"1 + {tile} / (2 x 12 x 2,048 x {columns})")
        compute = sheet.line(f"compute of {name}", f"{flop} x ({inner} + {half:,}) / {inner} x {waves} / {rate}", "ms")
        products.append(sheet.line(name, f"sqrt(({compute})^2 + ({memory})^2) + {latency}", "ms"))
    both = sheet.line("products", " + ".join(products), "ms")
    for name, times, size, seconds in (("forward", "", "3", forward_s), ("backward", "2 x ", "4", backward_s)):
        arithmetic = f"{times}{both} + ({size} + 5) x 12 x 2,048 x 2,048 / {streaming(task)}"
        sheet.line(name, arithmetic, "ms", by="core_time_s", model=seconds)


def layer() -> str:
    """A layer of Llama 3.1 8B, split over the eight H100s of a node: the host sets its pace."""
    sheet, task = Sheet(), job("llama-3.1-8b", "dgx-h100:8", batch=8, length=2048)
    kind, layouts = task.model.layers[0], LayoutTable.of([Layout(tensor_parallel=8, sequence_parallel=True)])
    products = attention_products(task, kind.attention, layouts) + mlp_products(task, kind.mlp, layouts)
    passes = [float(seconds[0]) for seconds in products_time_s(task, products)]
    cores = [float(seconds[0]) for seconds in core_time_s(task, kind.attention, layouts)]
    time = layer_time(task, kind, layouts)
    sheet.head("2,048 tokens, tensor parallelism of 8 with sequence parallelism, on eight H100s")
    state = sheet.line("hidden state held", "2 x 4,096 x 2,048 / 8", "MB")
    norms = sheet.line("two norms, two residuals", f"(2 x 2 + 2 x 3) x {state}", "MB")
    heads = sheet.line("rotation and transposes", "2 x 2 x 2,048 x (4 + 1 + 1) x 128", "MB")
    activation = sheet.line("activation, gated", "3 x 2 x 2,048 x 14,336 / 8", "MB")
    moved = sheet.line(
        "elementwise",
        f"{norms} + {heads} + {activation}",
        "MB",
        by="elementwise_bytes",
        model=float(elementwise_bytes(task, kind, layouts)[0]),
    )
    for name, part, number, times in (("forward", time.forward, 0, ""), ("backward", time.backward, 1, "2 x ")):
        sheet.head(f"{name.capitalize()} pass of one layer")
        parts = [
            sheet.given("matrix products", passes[number], "ms", by="products_time_s"),
            sheet.given("attention core", cores[number], "ms", by="core_time_s"),
            sheet.line("elementwise", f"{times}{moved} / {streaming(task)}", "ms"),
            sheet.given("messages of tensor ranks", float(part[Cause.TENSOR][0]), "ms", by="layer_time"),
        ]
        busy = sheet.line("device busy", " + ".join(parts), "ms")
        stack = task.stack
        launch = sheet.line(
            "host busy",
            f"{printed(stack.layer_launch, 'ms')} + 4 x {printed(stack.collective_launch, 'ms')}",
            "ms",
        )
        total = float(np.sum([seconds[0] for seconds in part.values()]))
        sheet.line(name, f"max({busy}, {launch})", "ms", by="layer_time", model=total)
    return sheet.text()


def communication() -> str:
    """Messages of Llama 3.1 70B's hidden state on H100s: inside a node, between two, and with one NIC."""
    sheet, cluster = Sheet(), job("llama-3.1-70b", "dgx-h100:16", batch=16, length=8192).cluster
    node, fabric = cluster.tiers
    size = 2 * 8192 * 8192
    node_startup, node_latency = printed(node.startup_s, "us"), printed(node.latency_s, "us")
    startup, latency = printed(fabric.startup_s, "us"), printed(fabric.latency_s, "us")

    def members(count: int, stride: int) -> Group:
        return Group(size=np.array([count]), stride=np.array([stride]))

    sheet.head("All-reduce over the eight H100s of a node")
    whole = sheet.line("bytes", "2 x 8,192 x 8,192", "MB")
    bus = sheet.line("link", f"{node.efficiency:g} x {printed(node.bandwidth_bytes_per_s, 'GB/s')}", "GB/s")
    own = sheet.line("own share copied", f"0.4 x {whole} / 8 / {bus}", "ms")
    wire = sheet.line("wire, by ring", f"2 x {whole} x 7 / 8 / {bus} + {own}", "ms")
    switch = sheet.line(
        "wire, in the switch",
        f"{whole} x (1 + 1 / 8) / ({node.in_network_reduction:g} x {printed(node.bandwidth_bytes_per_s, 'GB/s')})",
        "ms",
    )
    best = sheet.line("faster of them", f"min({wire}, {switch})", "ms")
    sheet.line(
        "all-reduce",
        f"(sqrt({node_startup}) + sqrt({best}))^2 + 2 x 7 x {node_latency}",
        "ms",
        by="all_reduce_s",
        model=float(all_reduce_s(cluster, members(8, 1), np.array([size]))[0]),
    )
    for count, stride, title in (
        (16, 1, "All-gather over the sixteen H100s of two nodes"),
        (2, 8, "All-gather over two H100s, one of each node"),
    ):
        group = members(count, stride)
        inside = 8 if stride == 1 else 1
        sheet.head(title)
        nic = printed(fabric.bandwidth_bytes_per_s, "GB/s")
        bus_model = float(ring_bus_bytes_per_s(cluster, group)[0])
        slowest = sheet.line(
            "slowest tier",
            f"{inside} x {fabric.efficiency:g} x {nic}",
            "GB/s",
            by="ring_bus_bytes_per_s",
            model=bus_model,
        )
        own = sheet.line("own share copied", f"0.4 x {whole} / {count} / {bus}", "ms")
        wire = sheet.line("wire", f"{whole} x {count - 1} / {count} / {slowest} + {own}", "ms")
        steps = f"14 x {node_latency} + 1 x {latency}" if stride == 1 else f"1 x {latency}"
        sheet.line(
            "all-gather",
            f"(sqrt({startup}) + sqrt({wire}))^2 + {steps}",
            "ms",
            by="all_gather_s",
            model=float(all_gather_s(cluster, group, np.array([size]))[0]),
        )
    return sheet.text()


def sharding_and_overlap() -> str:
    """ZeRO-3 of Llama 3.1 8B over two nodes of H100s: what hides beside a layer, and what does not."""
    sheet, task = Sheet(), job("llama-3.1-8b", "dgx-h100:16", batch=16, length=4096)
    layouts = LayoutTable.of([Layout(data_parallel=16, zero_stage=3, zero_shard=16)])
    stages = stage_table(task.model, layouts)
    parameters = stage_parameters(task, layouts, stages)
    messages = state_messages(task, layouts, parameters, np.array([[32]]))
    time = layer_time(task, task.model.layers[0], layouts)
    embedding, head = embedding_s(task, layouts), head_s(task, layouts)
    forward_s = 32 * np.sum(list(time.forward.values())) + embedding[0] + head[0]
    backward_s = 32 * np.sum(list(time.backward.values())) + embedding[1] + head[1]
    work = StageWork(forward_s=forward_s[:, np.newaxis], backward_s=backward_s[:, np.newaxis])
    exposed = exposed_communication_s(task, layouts, stages, parameters, work, beside=work, total=np.array([1.0]))
    contention = task.cluster.device.calibration.contention
    sheet.head("Messages of one of 32 layers")
    count = sheet.given("parameters of the model", float(parameters.dense[0, 0]), by="stage_parameters")
    gathered = sheet.line("gathered, bf16", f"2 x {count} / 32", "MB")
    reduced = sheet.line("reduced, fp32", f"4 x {count} / 32", "MB")
    node, fabric = task.cluster.tiers
    bus = sheet.line("bus", f"8 x {fabric.efficiency:g} x {printed(fabric.bandwidth_bytes_per_s, 'GB/s')}", "GB/s")
    link = sheet.line("link", f"{node.efficiency:g} x {printed(node.bandwidth_bytes_per_s, 'GB/s')}", "GB/s")
    startup, latency = printed(fabric.startup_s, "us"), printed(fabric.latency_s, "us")
    each: list[str] = []
    for name, size, seconds in (
        ("gather", gathered, messages.forward_gather_s),
        ("reduction", reduced, messages.reduction_s),
    ):
        wire = sheet.line(f"wire of the {name}", f"{size} x 15 / 16 / {bus} + 0.4 x {size} / 16 / {link}", "ms")
        message = sheet.line(
            name,
            f"(sqrt({startup}) + sqrt({wire}))^2 + 14 x {printed(node.latency_s, 'us')} + 1 x {latency}",
            "ms",
            by="state_messages",
            model=float(seconds[0, 0]) / 32,
        )
        each.append(message)
    both = sheet.line("both, in the backward pass", " + ".join(each), "ms")
    sheet.head("Beside the compute of one of 32 layers")
    exposures: list[str] = []
    for name, seconds, message in (("forward", forward_s, each[0]), ("backward", backward_s, both)):
        whole = sheet.given(f"{name} pass", float(seconds[0]), "ms")
        compute = sheet.line("a layer of it", f"{whole} / 32", "ms")
        beside = f"max({message} - {compute}, (1 - 1 / {contention:g}) x {message})"
        exposures.append(sheet.line("exposed", f"{message} + 31 x {beside}", "ms"))
    total = float((exposed[0] + exposed[1])[0, 0])
    sheet.line("exposed in a step", " + ".join(exposures), "ms", by="exposed_communication_s", model=total)
    sheet.head("Copies of the same in PyTorch's fully_shard")
    sharded = job("llama-3.1-8b", "dgx-h100:16", batch=16, length=4096, stack="fsdp2")
    packed_s, unpacked_s = packing_s(sharded, layouts, parameters, total=np.array([1.0]))
    memory = printed(sharded.cluster.device.memory_bandwidth_bytes_per_s, "GB/s")
    rate = sheet.line("streaming", f"{sharded.cluster.device.calibration.streaming:g} x {memory}", "GB/s")
    copies = (("out of gathers of both passes", "2 x (2 + 2)", unpacked_s), ("into reductions", "(2 + 4)", packed_s))
    for name, each_bytes, seconds in copies:
        sheet.line(name, f"{each_bytes} x {count} / {rate}", "ms", by="packing_s", model=float(seconds[0, 0]))
    return sheet.text()


# A published run: Llama 3 70B cut to 12 layers on eight B200s.
MEASURED = "sm-b200-llama3-70b-l12-tp1-pp2-dp4-mbc4"


def memory() -> str:
    """The first of two stages of a model of 12 layers, cause by cause, as it was measured, and what counters see."""
    sheet, task = Sheet(), _cut_model()
    layout = Layout(pipeline_parallel=2, data_parallel=4, zero_stage=1, zero_shard=4)
    layouts = LayoutTable.of([layout])
    found = predict_memory(task, layouts)
    part = {cause: float(amount[0]) for cause, amount in found.breakdown.items()}
    sheet.head("States of the first of two stages: 6 layers and the embedding, four replicas")
    parameters = stage_parameters(task, layouts, stage_table(task.model, layouts))
    count = sheet.given("parameters of a rank", float(parameters.dense[0, 0]), by="stage_parameters")
    sums = [
        sheet.line(name, arithmetic, "GiB", by="state_bytes", model=part[name.replace(" ", "_")])
        for name, arithmetic in (
            ("parameters", f"2 x {count}"),
            ("gradients", f"4 x {count}"),
            ("master weights", f"4 x {count} / 4"),
            ("moments", f"8 x {count} / 4"),
        )
    ]
    sums.append(_activations(sheet, task, layouts, part["activations"]))
    sheet.head("One layer's largest weight gradient, of gate and up, in 16 bits and in fp32")
    sums.append(
        sheet.line("gradient", "(2 + 4) x 8,192 x 57,344", "GiB", by="backward_parts", model=part["working_set"])
    )
    sheet.head("What three counters see")
    sums.append(sheet.given("workspace", part["workspace"], "GiB"))
    allocated = sheet.line(
        "allocated", " + ".join(sums), "GiB", by="peak_memory", model=float(found.allocated_bytes[0])
    )
    sheet.given("measured", _measured_bytes(), "GiB")
    slack = f"(1 + {task.stack.allocator_slack:g})"
    model = float(found.reserved_bytes[0])
    reserved = sheet.line("reserved", f"{allocated} x {slack}", "GiB", by="peak_memory", model=model)
    calibration = task.cluster.device.calibration
    outside = [printed(amount, "GiB") for amount in (calibration.context, task.stack.loaded_kernels)]
    buffers = f"3 x {printed(calibration.communicator, 'MB')}"
    model = float(found.nvidia_smi_bytes[0])
    sheet.line("nvidia_smi", " + ".join([reserved, *outside, buffers]), "GiB", by="peak_memory", model=model)
    return sheet.text()


def _cut_model() -> Job:
    task = job("llama-3.1-70b", "dgx-b200:8", batch=16, length=4096, stack="megatron-lm-main")
    model = find_model("llama-3.1-70b").model_copy(update={"layers": 12})
    return replace(task, model=transformer_of(model), stack=task.stack.model_copy(update={"dropout": False}))


def _measured_bytes() -> float:
    file = Path(__file__).parents[1] / "catalog" / "measurements" / "simumax.yaml"
    (found,) = [case.measured for case in load_cases(file) if case.id == MEASURED]
    return float(found.peak_memory_bytes)


def _activations(sheet: Sheet, task: Job, layouts: LayoutTable, model: float) -> str:
    """Write what the first stage keeps of two micro-batches, tensor by tensor."""
    sheet.head("What a layer keeps of a micro-batch of 4,096 tokens")
    tensors = [
        sheet.line(name, arithmetic, "MiB")
        for name, arithmetic in (
            ("two norms", "2 x (2 + 2) x 4,096 x 8,192"),
            ("queries, keys, values", "2 x 4,096 x (64 + 8 + 8) x 128"),
            ("weighted values", "2 x 4,096 x 64 x 128"),
            ("log-sum-exp", "4 x 4,096 x 64"),
            ("gate, up and activation", "3 x 2 x 4,096 x 28,672"),
        )
    ]
    layer = layer_activations(task, task.model.layers[0], layouts)
    kept = sheet.line("a layer", " + ".join(tensors), "MiB", by="layer_activations", model=float(layer.kept[0]))
    embedded = sheet.line("the embedding's output", "2 x 4,096 x 8,192", "MiB")
    in_flight = f"2 x (6 x {kept} + {embedded})"
    return sheet.line("activations of 2 micro-batches", in_flight, "GiB", by="backward_parts", model=model)


def schedules() -> str:
    """Two schedules of the step's pipeline, and what its first stage holds."""
    sheet, task = Sheet(), job("llama-3.1-70b", "dgx-h100:64", batch=128, length=8192)
    plain = Layout(
        tensor_parallel=4, sequence_parallel=True, pipeline_parallel=4, data_parallel=4, zero_stage=1, zero_shard=4
    )
    chunked = replace(plain, virtual_pipeline=5, schedule=Schedule.INTERLEAVED)
    for layout, title in ((plain, "1F1B"), (chunked, "Interleaved, 5 chunks a stage")):
        table = LayoutTable.of([layout])
        layer = LayerSeconds.of(layer_time(task, task.model.layer_kinds[0], table))
        stages = stage_table(task.model, table)
        added = accumulation_s(task, table, stage_parameters(task, table, stages), total=np.array([32.0]))
        virtual = layout.virtual_pipeline
        middle_s = 20 / virtual * float(layer.forward_s[0] + layer.backward_s[0]) + float(added[0, 1]) / virtual
        first_s = middle_s + float(sum(embedding_s(task, table))[0]) + float(added[0, 0] - added[0, 1]) / virtual
        sheet.head(title)
        first = sheet.given("first stage" if virtual == 1 else "its first chunk", first_s, "ms")
        middle = sheet.given("a stage in the middle" if virtual == 1 else "a chunk in the middle", middle_s, "ms")
        arithmetic = f"{first} + 2 x {middle}" + (f" + 3 x ({first} - {middle})" if virtual > 1 else "")
        bubble_s = float(predict_time(task, table).breakdown["bubble"][0])
        sheet.line("bubble", arithmetic, "s", by="bubble_s", model=bubble_s)
        held = held_micro_batches(table, np.array([[0]]), total=np.array([32.0]))
        counted = "min(32, 4 - 0)" if virtual == 1 else "min(32 x 5, 2 x 3 + 4 x 4 + 1) / 5"
        sheet.line("held by the first stage", counted, by="held_micro_batches", model=float(held[0, 0]))
    return sheet.text()


EXAMPLES: dict[str, Callable[[], str]] = {
    "README.md": step,
    "matrix-products.md": matrix_products,
    "attention.md": attention,
    "layer.md": layer,
    "communication.md": communication,
    "sharding-and-overlap.md": sharding_and_overlap,
    "memory.md": memory,
    "schedules.md": schedules,
}
