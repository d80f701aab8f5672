"""PyTorch runs each layout as the ledger says: bytes, collectives, and the losses of one process."""

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from small_models import small_model, small_workload
from targets.worlds import reports_of, run_world

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.cli.render.runs import render_run
from meshwright.costmodels.layout import Recompute
from meshwright.planner import load_plan
from meshwright.planner.emission.torch.obstacles import workload_obstacles
from meshwright.planner.ledger.transfers import Kind, Transfer, totals
from meshwright.runtime.meter import CollectiveMeter
from meshwright.runtime.report import Report

PLAN = Path(__file__).parents[1] / "golden" / "llama-3.1-8b-on-a-pcie-box.yaml"
MIXTURE, SHARED = small_model(experts=True), small_model(experts=True, shared=True)
FULL, SELECTIVE = {"recompute": Recompute.FULL}, {"recompute": Recompute.SELECTIVE}
GATHER, ULYSSES = ({"context_method": method} for method in (ContextMethod.ALL_GATHER, ContextMethod.ULYSSES))
TENSOR = {"tensor_parallel": 2, "sequence_parallel": True}
INTERLEAVED = {"pipeline_parallel": 2, "virtual_pipeline": 2, "schedule": Schedule.INTERLEAVED}
ZERO_BUBBLE_V = {"pipeline_parallel": 2, "virtual_pipeline": 2, "schedule": Schedule.ZERO_BUBBLE_V}
DUAL_PIPE_V = {"pipeline_parallel": 2, "virtual_pipeline": 2, "schedule": Schedule.DUAL_PIPE_V}

WORKLOADS = {
    # Two processes: each axis alone.
    "replicas": small_workload(data_parallel=2),
    "zero 1": small_workload(data_parallel=2, zero_stage=1, zero_shard=2),
    "zero 2": small_workload(data_parallel=2, zero_stage=2, zero_shard=2),
    "zero 3": small_workload(data_parallel=2, zero_stage=3, zero_shard=2),
    "zero 3, held within a step": small_workload(data_parallel=2, zero_stage=3, zero_shard=2, parameter_shard=1),
    "zero 2, gradients summed once": small_workload(data_parallel=2, zero_stage=2, zero_shard=2, gradient_shard=1),
    "zero 3, recomputed": small_workload(data_parallel=2, zero_stage=3, zero_shard=2, **FULL),
    "tensor": small_workload(tensor_parallel=2),
    "tensor, recomputed": small_workload(tensor_parallel=2, **FULL),
    "sequence": small_workload(**TENSOR),
    "sequence, half recomputed": small_workload(**TENSOR, **FULL, recompute_layers=2),
    "sequence, cores recomputed": small_workload(**TENSOR, **SELECTIVE),
    "keys gathered": small_workload(context_parallel=2, **GATHER),
    "keys gathered, recomputed": small_workload(context_parallel=2, **GATHER, **FULL),
    "keys gathered, sharded": small_workload(context_parallel=2, zero_stage=3, zero_shard=2, **GATHER),
    "ulysses": small_workload(context_parallel=2, **ULYSSES),
    "ulysses, partly recomputed": small_workload(context_parallel=2, **ULYSSES, **FULL, recompute_split=(3,)),
    "gpipe": small_workload(pipeline_parallel=2, schedule=Schedule.GPIPE),
    "1f1b": small_workload(pipeline_parallel=2),
    "1f1b, uneven and recomputed": small_workload(pipeline_parallel=2, split=(3, 1), **FULL),
    "interleaved": small_workload(**INTERLEAVED),
    "interleaved, uneven": small_workload(**INTERLEAVED, split=(1, 2, 1, 0)),
    "zero-bubble": small_workload(pipeline_parallel=2, schedule=Schedule.ZERO_BUBBLE_H1),
    "zero-bubble v": small_workload(**ZERO_BUBBLE_V),
    "dualpipe v": small_workload(**DUAL_PIPE_V),
    "experts": small_workload(MIXTURE, data_parallel=2, expert_parallel=2),
    "experts, recomputed": small_workload(MIXTURE, data_parallel=2, expert_parallel=2, **FULL),
    "experts, copied": small_workload(MIXTURE, data_parallel=2),
    "experts, sharded and recomputed": small_workload(MIXTURE, data_parallel=2, zero_stage=3, zero_shard=2, **FULL),
    "experts, over tensor ranks": small_workload(SHARED, expert_parallel=2, **TENSOR, **FULL),
    "experts, copied over tensor ranks": small_workload(SHARED, **TENSOR),
    "keys gathered, two sequences and experts": small_workload(
        SHARED, micro_batch=2, context_parallel=2, expert_parallel=2, **GATHER
    ),
    "keys gathered, cores recomputed": small_workload(context_parallel=2, **GATHER, **SELECTIVE),
    "ulysses, two sequences, cores recomputed": small_workload(
        micro_batch=2, context_parallel=2, **ULYSSES, **SELECTIVE
    ),
    "zero-bubble, two chunks and experts": small_workload(
        MIXTURE, pipeline_parallel=2, virtual_pipeline=2, schedule=Schedule.ZERO_BUBBLE_H1
    ),
    "zero-bubble v, cores recomputed": small_workload(MIXTURE, micro_batches=2, **ZERO_BUBBLE_V, **SELECTIVE),
    "experts, unevenly filled": small_workload(
        MIXTURE, sequence_length=30, expert_parallel=2, context_parallel=2, **GATHER
    ),
    "bf16 and zero 3": replace(small_workload(data_parallel=2, zero_stage=3, zero_shard=2), element_bytes=2),
    # Four processes: two axes, and hybrid sharding.
    "hybrid, zero 1": small_workload(data_parallel=4, zero_stage=1, zero_shard=2),
    "hybrid, zero 3": small_workload(data_parallel=4, zero_stage=3, zero_shard=2),
    "zero-bubble of three stages": small_workload(
        small_model(experts=True, layers=6), pipeline_parallel=3, virtual_pipeline=2, schedule=Schedule.ZERO_BUBBLE_H1
    ),
    "shards of three rows": small_workload(micro_batches=2, data_parallel=3, zero_stage=3, zero_shard=3),
    "tensor and zero 3": small_workload(data_parallel=2, zero_stage=3, zero_shard=2, **TENSOR),
    "tensor and zero 2": small_workload(data_parallel=2, zero_stage=2, zero_shard=2, tensor_parallel=2),
    "pipeline and zero 3": small_workload(data_parallel=2, pipeline_parallel=2, zero_stage=3, zero_shard=2),
    "zero-bubble and zero 3": small_workload(
        data_parallel=2, pipeline_parallel=2, zero_stage=3, zero_shard=2, schedule=Schedule.ZERO_BUBBLE_H1
    ),
    "interleaved and zero 1": small_workload(data_parallel=2, zero_stage=1, zero_shard=2, **INTERLEAVED),
    "eight chunks and zero 3": small_workload(
        small_model(layers=8),
        data_parallel=2,
        zero_stage=3,
        zero_shard=2,
        **INTERLEAVED | {"virtual_pipeline": 4},
    ),
    "zero-bubble v and tensor": small_workload(**TENSOR, **ZERO_BUBBLE_V),
    "ulysses and tensor": small_workload(context_parallel=2, **ULYSSES, **TENSOR),
    "experts and zero 3": small_workload(
        MIXTURE, data_parallel=4, expert_parallel=2, zero_stage=3, zero_shard=4, **FULL
    ),
    "experts and hybrid": small_workload(MIXTURE, data_parallel=4, expert_parallel=2, zero_stage=3, zero_shard=2),
    "keys gathered, zero 3, four sequences": small_workload(
        micro_batch=4, data_parallel=2, context_parallel=2, zero_stage=3, zero_shard=4, **GATHER
    ),
    "experts over data and tensor": small_workload(
        MIXTURE, data_parallel=2, expert_parallel=4, zero_stage=3, zero_shard=2, **TENSOR
    ),
    "experts over data and context": small_workload(
        MIXTURE, data_parallel=2, context_parallel=2, expert_parallel=4, zero_stage=2, zero_shard=4, **GATHER
    ),
    "experts and zero-bubble": small_workload(
        MIXTURE,
        data_parallel=2,
        expert_parallel=2,
        pipeline_parallel=2,
        zero_stage=1,
        zero_shard=2,
        schedule=Schedule.ZERO_BUBBLE_H1,
    ),
    "bf16, tensor, pipeline and zero 1": replace(
        small_workload(data_parallel=2, pipeline_parallel=2, zero_stage=1, zero_shard=2, **TENSOR), element_bytes=2
    ),
    "bf16, context and tensor": replace(
        small_workload(context_parallel=2, zero_stage=2, zero_shard=2, **GATHER, **TENSOR, **FULL), element_bytes=2
    ),
    # Eight processes: three axes and more.
    "tensor, pipeline and zero 3": small_workload(
        data_parallel=2, pipeline_parallel=2, zero_stage=3, zero_shard=2, **TENSOR
    ),
    "tensor and hybrid": small_workload(micro_batches=2, data_parallel=4, zero_stage=3, zero_shard=2, **TENSOR),
    "tensor, context and pipeline": small_workload(
        context_parallel=2, pipeline_parallel=2, zero_stage=1, zero_shard=2, **GATHER, **TENSOR
    ),
    "context, data and pipeline": small_workload(
        context_parallel=2, data_parallel=2, zero_stage=1, zero_shard=4, **ULYSSES, **DUAL_PIPE_V
    ),
    "tensor, experts and interleaved": small_workload(
        SHARED, data_parallel=2, expert_parallel=2, zero_stage=1, zero_shard=2, **TENSOR, **INTERLEAVED
    ),
}
SIZES = sorted({workload.layout.world_size for workload in WORKLOADS.values()})


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    found: dict[str, Report] = {}
    for size in SIZES:
        own = {name: workload for name, workload in WORKLOADS.items() if workload.layout.world_size == size}
        found |= reports_of(own, tmp_path_factory.mktemp(f"world-{size}"))
    return found


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_layout_runs_as_expected(name: str, reports: dict[str, Report]) -> None:
    assert list(workload_obstacles(WORKLOADS[name])) == []
    report = reports[name]
    assert list(report.differences()) == []
    assert report.losses_alone is not None
    assert len(set(report.losses)) == len(report.losses)


def test_sixteen_bits_come_near(reports: dict[str, Report]) -> None:
    for name in ("bf16 and zero 3", "bf16, tensor, pipeline and zero 1", "bf16, context and tensor"):
        assert reports[name].losses == pytest.approx(reports[name].losses_alone, abs=0.01)
        assert not reports[name].exact


def test_losses_start_where_nothing_is_known(reports: dict[str, Report]) -> None:
    for report in reports.values():
        assert math.isclose(report.losses[0], math.log(report.workload.model.vocab), rel_tol=0.02)


def test_recomputing_keeps_less(reports: dict[str, Report]) -> None:
    kept, recomputed = reports["zero 3"], reports["zero 3, recomputed"]
    assert 4 * recomputed.measured[0].activation_bytes < kept.measured[0].activation_bytes
    cores = reports["sequence, cores recomputed"].measured[0].activation_bytes
    assert cores < reports["sequence"].measured[0].activation_bytes


def test_a_difference_is_told(reports: dict[str, Report]) -> None:
    report, other = reports["replicas"], reports["zero 3"]
    mixed = replace(report, expected=other.expected, losses_alone=tuple(loss + 1 for loss in report.losses))
    told = list(mixed.differences())
    assert any("parameter_bytes" in each for each in told)
    assert any("all_reduce" in each for each in told)
    assert sum("in one process" in each for each in told) == len(report.losses)


def test_tables_say_what_was_as_expected(reports: dict[str, Report]) -> None:
    plan = load_plan(PLAN)
    text = Console(file=StringIO(), width=120)
    render_run(text, plan, reports["sequence"])
    shown = text.file.getvalue()
    assert "small on 2 processes: tp 2" in shown
    assert "the plan predicts of llama-3.1-8b" in shown
    assert shown.count("the same") == 2 * 2 + 2 * 3
    assert "different" not in shown
    text = Console(file=StringIO(), width=120)
    render_run(text, plan, replace(reports["sequence"], expected=reports["tensor"].expected))
    assert text.file.getvalue().count("different") == 2 + 2 * 3
    text = Console(file=StringIO(), width=120)
    render_run(text, plan, replace(reports["sequence"], expected=reports["tensor"].expected, on_processor=False))
    assert text.file.getvalue().count("not compared") == 2


def _collectives(file: Path) -> None:
    with CollectiveMeter() as meter:
        dist.all_reduce(torch.zeros(3))
        dist.all_gather_into_tensor(torch.zeros(8), torch.zeros(4))
        dist.reduce_scatter_tensor(torch.zeros(2), torch.zeros(4))
        dist.all_to_all_single(torch.zeros(6), torch.zeros(6))
        first = dist.get_rank() == 0
        dist.send(torch.zeros(5), 1) if first else dist.recv(torch.zeros(5), 0)
    file.with_suffix(f".{dist.get_rank()}").write_text(repr(_plain(meter.transfers)))


def _plain(transfers: list[Transfer]) -> dict[str, tuple[int, int]]:
    assert {ranks for _, ranks in totals(transfers)} == {(0, 1)}
    return {str(kind): value for (kind, _), value in totals(transfers).items()}


def test_the_meter_counts_what_is_run(tmp_path: Path) -> None:
    run_world(2, _collectives, tmp_path / "counted")
    common = {Kind.ALL_REDUCE: 12, Kind.ALL_GATHER: 32, Kind.REDUCE_SCATTER: 16, Kind.ALL_TO_ALL: 24}
    for rank, own in enumerate((Kind.SEND, Kind.RECV)):
        counted = {str(kind): (1, size) for kind, size in (common | {own: 20}).items()}
        assert (tmp_path / f"counted.{rank}").read_text() == repr(counted)
