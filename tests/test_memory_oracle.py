"""What is expected of PyTorch's tracker follows by hand from a plan; tests/targets asks the tracker itself."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from oracle_plans import LAYOUTS, PIPELINE, SHARDED, SMALL, TENSOR, small_plan
from rich.console import Console

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.catalog.schedule import Schedule
from meshwright.cli import extras
from meshwright.cli.render.oracle import oracle_document, render_oracle
from meshwright.cli.verify import verify_command
from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner import Plan, write_plan
from meshwright.planner.memory_oracle import (
    Comparison,
    Expectation,
    Held,
    expectations,
    oracle_workload,
    require_agreement,
)

TOKENS, HIDDEN, WIDTH, WORDS, LAYERS = 2048, 2048, 5632, 32_000, 12
# norms' inputs and outputs, queries, keys and values, attention's output and its sums, the gated MLP
LAYER_BYTES = 2 * 4 * HIDDEN + 2 * (HIDDEN + 2 * 256) + 2 * HIDDEN + 4 * 32 + 8 * WIDTH


def expected_of(plan: Plan) -> tuple[Expectation, ...]:
    return expectations(plan, oracle_workload(plan, file="plan.yaml"))


def plan_of(name: str) -> Plan:
    fields, batch = LAYOUTS[name]
    return small_plan(fields, global_batch=batch)


def test_at_the_loss_by_hand() -> None:
    (found,) = expected_of(plan_of("zero 3"))
    shard = total_parameters(transformer_of(SMALL)) / 8
    assert found.expected.parameters == pytest.approx(4 * shard + 2 * WORDS * HIDDEN)
    assert found.expected.gradients == pytest.approx(4 * shard)
    assert found.expected.optimizer == pytest.approx(8 * shard)
    assert found.expected.activations == TOKENS * (LAYERS * LAYER_BYTES + 2 * HIDDEN + 12 * WORDS)
    assert found.expected.workspace == 0
    assert "at the loss of a later micro-batch" in found.reasons[0]


def test_one_micro_batch_has_no_gradients_at_the_loss() -> None:
    (one,), (two,) = expected_of(plan_of("zero 3, one micro-batch")), expected_of(plan_of("zero 3"))
    assert one.expected.gradients == 0
    assert one.planned.gradients == two.expected.gradients > 0


def test_logits_are_whole_on_each_tensor_rank() -> None:
    fields = {"tensor_parallel": 2, "data_parallel": 4, "zero_stage": 3, "zero_shard": 4}
    (plain,) = expected_of(small_plan(fields, global_batch=8))
    (cut,) = expected_of(small_plan(fields | TENSOR, global_batch=8))
    half = LAYERS * (LAYER_BYTES - 2 * 4 * HIDDEN) / 2
    assert plain.expected.activations == TOKENS * (half + LAYERS * 8 * HIDDEN + 2 * HIDDEN + 12 * WORDS)
    # cut tokens: half of the norms' inputs, but the products' gathered inputs are whole
    assert cut.expected.activations == TOKENS * (half + LAYERS * (2 + 4) * HIDDEN + HIDDEN + 12 * WORDS)
    assert any("whole on each tensor rank" in reason for reason in cut.reasons)
    assert any("gathered inputs" in reason for reason in cut.reasons)


def test_gpipe_keeps_what_the_loss_of_each_micro_batch_needs() -> None:
    plan = small_plan(PIPELINE | {"schedule": Schedule.GPIPE}, global_batch=8)
    first, last = expected_of(plan)
    assert (first.rank, last.rank) == (0, 2)
    # of 4 micro-batches 3 are left when gradients are there: 2 + 4 bytes of each logit, and 8 of those in work
    buffers = 2 * HIDDEN * (4 - 3)
    kept = 3 * (LAYERS // 2 * LAYER_BYTES + (2 + 4) * WORDS)
    assert last.expected.activations == TOKENS * (kept + 8 * WORDS + buffers)


@pytest.mark.parametrize(
    ("path", "fields", "asked"),
    [
        ("inputs.stack", {"zero_stage": 1}, {"stack": "megatron-core"}),
        ("layout.zero_shard", {"zero_stage": 0, "zero_shard": 1}, {}),
        ("layout.context_parallel", {"zero_stage": 3, "context_parallel": 2}, {}),
        ("layout.recompute", {"zero_stage": 3, "recompute": Recompute.SELECTIVE}, {}),
        ("inputs.job.precision", {"zero_stage": 3}, {"precision": "fp8"}),
        ("layout.schedule", {"zero_stage": 1, "pipeline_parallel": 2, "schedule": Schedule.ZERO_BUBBLE_H1}, {}),
    ],
)
def test_what_isnt_tracked(path: str, fields: dict[str, Any], asked: dict[str, Any]) -> None:
    plan = small_plan(SHARDED | fields, global_batch=32, **asked)
    with pytest.raises(InputError, match="the reference launcher") as raised:
        oracle_workload(plan, file="plan.yaml")
    assert raised.value.path == path


@pytest.mark.parametrize(
    ("fields", "micro_batches"),
    [(PIPELINE, 4), (PIPELINE | {"schedule": Schedule.GPIPE}, 32), (SHARDED | {"zero_stage": 3}, 2)],
)
def test_as_many_micro_batches_as_the_peak_needs(fields: dict[str, Any], micro_batches: int) -> None:
    assert oracle_workload(small_plan(fields, global_batch=64), file="").micro_batches == micro_batches


def comparison(share: float) -> Comparison:
    (expectation,) = expected_of(plan_of("zero 3"))
    by_class = {name: size * share for name, size in expectation.expected.by_class().items()}
    return Comparison(expectation=expectation, tracked=Held(**by_class))


def test_further_apart_than_the_tolerance() -> None:
    require_agreement([comparison(1.0), comparison(0.96), comparison(1.04)])
    for share, words in ((1.06, "-5.7%"), (0.94, "6.4%")):
        with pytest.raises(MeshwrightError, match="PyTorch's tracker finds") as raised:
            require_agreement([comparison(1.0), comparison(share)])
        assert words in raised.value.message


def test_what_is_shown() -> None:
    found = comparison(0.5)
    console = Console(file=StringIO(), width=120)
    render_oracle(console, [found])
    shown = console.file.getvalue()
    assert "Memory of rank 0, stage 0" in shown
    assert shown.count("+100.0 %") == 4 + 1
    assert "the tracker counts tensors" in " ".join(shown.split())
    (document,) = oracle_document([found])
    assert document["error"] == pytest.approx(1.0)
    assert document["tracked_bytes"]["optimizer"] == document["expected_bytes"]["optimizer"] / 2


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_plan(plan_of("zero 3"), tmp_path / "plan.yaml")
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(MeshwrightError, match="--with torch needs PyTorch"):
        verify_command(tmp_path / "plan.yaml", oracle="torch")
