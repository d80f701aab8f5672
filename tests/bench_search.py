"""How long searches take, against what they are to take, and how that grows: `make bench-search`.

    python tests/bench_search.py [FIGURE.svg]

Searches are timed after imports, each several times in this process; the median counts. With a file's name the growth
over devices and layers is drawn there.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.lookup import find_cluster, find_model
from meshwright.catalog.model_entry import ModelEntry
from meshwright.planner import Plan, inputs_of, plan_of

RUNS = 5
GROWTH_DEVICES = (64, 256, 1024, 4096, 16384, 65536)
GROWTH_LAYERS = (16, 32, 64, 128, 256)
SEQUENCE_LENGTH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search to time: at most `bar_s` seconds, within `gap` of what is possible."""

    model: ModelEntry
    cluster: ClusterEntry
    global_batch: int
    sequence_length: int
    bar_s: float = float("inf")
    gap: float = 0.0


def searches() -> Iterator[Search]:
    """Give the searches that have a bar."""
    named = (
        ("megatron-1t", "selene:3072", 3072, 2048, 1.0),
        ("megatron-530b", "selene:4480", 2240, 2048, 1.0),
        ("llama-3.1-405b", "dgx-h100:16384", 2048, 8192, 2.0),
        ("deepseek-v3", "dgx-h100:2048", 15360, 4096, 2.0),
        ("pangu-ultra-moe-718b", "atlas-900-a2:6144", 6144, 4096, 2.0),
    )
    small = find_cluster("selene:8").model_copy(update={"name": "a100-40gb", "device": "a100-sxm-40gb"})
    yield Search(
        model=find_model("llama-2-7b"), cluster=small, global_batch=64, sequence_length=SEQUENCE_LENGTH, bar_s=0.3
    )
    for model, cluster, global_batch, sequence_length, bar_s in named:
        yield Search(
            model=find_model(model),
            cluster=find_cluster(cluster),
            global_batch=global_batch,
            sequence_length=sequence_length,
            bar_s=bar_s,
        )
    for model in (find_model("megatron-1t"), ten_trillion()):
        cluster = find_cluster("dgx-h100:100000")
        yield Search(model=model, cluster=cluster, global_batch=25_000, sequence_length=2048, bar_s=5.0, gap=0.02)


def ten_trillion() -> ModelEntry:
    """Give a GPT of ten trillion parameters: 200 layers of 12 h^2, with h = 65,536."""
    hidden, heads = 65_536, 512
    return find_model("megatron-1t").model_copy(
        update={
            "name": "gpt-10t",
            "layers": 200,
            "hidden": hidden,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": hidden // heads,
            "ffn_hidden": 4 * hidden,
            "published_parameters": None,
        }
    )


def growth() -> Iterator[Search]:
    """Give a model of each number of layers on each number of devices, with 16 sequences for each 8 of those."""
    model = find_model("llama-3.1-70b")
    for layers, devices in product(GROWTH_LAYERS, GROWTH_DEVICES):
        deep = model.model_copy(update={"layers": layers, "published_parameters": None})
        cluster = find_cluster(f"dgx-h100:{devices}")
        yield Search(model=deep, cluster=cluster, global_batch=2 * devices, sequence_length=SEQUENCE_LENGTH)


def timed(search: Search) -> tuple[float, Plan]:
    """Give the median seconds of a search, and its plan."""
    inputs = inputs_of(
        search.model,
        search.cluster,
        global_batch=search.global_batch,
        sequence_length=search.sequence_length,
        precision="bf16",
        objective="time",
        top=5,
        memory_headroom=0.05,
    )
    made = [plan_of(inputs) for _ in range(RUNS)]
    return statistics.median(one.search_s for one in made), made[0].plan


def show_bars(console: Console) -> None:
    """Time the searches that have a bar."""
    table = Table(title="Searches", box=None)
    for name in ("model", "devices", "candidates", "evaluated", "step", "gap", "search", "bar", ""):
        table.add_column(name, justify="left" if name == "model" else "right")
    for search in searches():
        seconds, plan = timed(search)
        held = seconds <= search.bar_s and plan.search.gap <= search.gap
        table.add_row(
            search.model.name,
            f"{search.cluster.devices:,}",
            f"{plan.search.candidates:,}",
            f"{plan.search.feasible:,}",
            f"{plan.predicted.step_time_s:.2f} s",
            f"{plan.search.gap:.2%}",
            f"{seconds:.2f} s",
            f"{search.bar_s} s",
            "held" if held else "missed",
        )
    console.print(table)


def draw_growth(console: Console, file: Path) -> None:
    """Time how searches grow, and draw it."""
    seconds = {(one.model.layers, one.cluster.devices): timed(one)[0] for one in growth()}
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for layers in GROWTH_LAYERS:
        axes.plot(GROWTH_DEVICES, [seconds[layers, devices] for devices in GROWTH_DEVICES], marker="o", label=layers)
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="seconds to the proof")
    axes.set_xticks(GROWTH_DEVICES, [f"{devices:,}" for devices in GROWTH_DEVICES], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(title="layers")
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    console.print(f"written to {file}")


if __name__ == "__main__":
    output = Console(width=140)
    show_bars(output)
    if len(sys.argv) > 1:
        draw_growth(output, Path(sys.argv[1]))
