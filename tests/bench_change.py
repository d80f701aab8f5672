"""Clusters that change, against their bars: a part of `make bench-mixed`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time

from bench_row import Row
from resharded_plans import small_base, small_plan
from verified_plans import golden_plan

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout
from meshwright.planner import Plan, plan, write_plan
from meshwright.planner.change import replanned
from meshwright.planner.change.left import change_of
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.resharding import moves_document, reshard
from meshwright.planner.verification.resharding import replayed

REPLAN_S, REPLAN_GAP = 2.0, 0.03
RESHARD_S, RESHARD_BYTES = 10.0, 2**30
# As its owners trained it, but for the order of passes: 16 stages, 64 expert ranks, ZeRO-1 (arXiv 2412.19437).
PUBLISHED = Layout(
    pipeline_parallel=16, data_parallel=128, expert_parallel=64, zero_stage=1, zero_shard=128, recompute="full"
)
FEWER = replace(PUBLISHED, pipeline_parallel=12)
SMALL: tuple[dict[str, object], ...] = (
    {
        "tensor_parallel": 2,
        "pipeline_parallel": 2,
        "data_parallel": 8,
        "expert_parallel": 4,
        "zero_stage": 1,
        "zero_shard": 8,
    },
    {"pipeline_parallel": 3, "split": (1, 2, 1), "data_parallel": 6, "expert_parallel": 2, "zero_stage": 0},
    {"tensor_parallel": 4, "data_parallel": 8, "expert_tensor_parallel": 2, "zero_stage": 3, "zero_shard": 4},
    {
        "pipeline_parallel": 2,
        "virtual_pipeline": 2,
        "schedule": Schedule.INTERLEAVED,
        "data_parallel": 4,
        "zero_stage": 2,
        "zero_shard": 4,
    },
    {"pipeline_parallel": 4, "schedule": Schedule.DUAL_PIPE, "data_parallel": 4, "expert_parallel": 4},
)


def change_rows() -> Iterator[Row]:
    """Measure each job of a change, a row each."""
    yield replan_row()
    searched = golden_plan("deepseek-v3-on-2048-h100")
    job = searched.inputs.job
    fewer = plan(
        "deepseek-v3", "dgx-h100:1536", global_batch=job.global_batch, sequence_length=job.sequence_length, top=0
    )
    yield reshard_row("reshard DeepSeek-V3, 2,048 to 1,536, as searched", searched, fewer)
    published = (plan_of_layout(searched.inputs, layout, must_fit=False) for layout in (PUBLISHED, FEWER))
    yield reshard_row("reshard DeepSeek-V3, 2,048 to 1,536, ep 64, 16 to 12 stages", *published)
    yield replay_row()


def replan_row() -> Row:
    """Replan Llama 3.1 405B on 16,384 devices after losing three nodes: processor seconds, least of three."""
    old = golden_plan("llama-3.1-405b-on-16384-h100")
    took = []
    for _ in range(3):
        begun = process_time()
        found = replanned(old, change_of(old, lose="node:3,node:700,node:1999"))
        took.append(process_time() - begun)
    new = found.chosen.plan
    moved = found.chosen.move.moved_bytes
    return Row(
        job="replan 405B on 16,384 after losing 3 nodes",
        found=f"{min(took):.2f} s, {new.search.gap:.2%} over the bound, {moved / 1e12:.2f} TB moved",
        bar=f"{REPLAN_S:g} s, {REPLAN_GAP:.0%}",
        holds=min(took) <= REPLAN_S and new.search.gap <= REPLAN_GAP and moved > 0,
    )


def reshard_row(job: str, old: Plan, new: Plan) -> Row:
    """Reshard in a process of its own, from plan files to a file of moves: its processor seconds and its memory."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("old.yaml", "new.yaml", "moves.json")]
        write_plan(old, names[0])
        write_plan(new, names[1])
        command = [sys.executable, "-m", "meshwright.cli.main", "reshard", *names[:2], "-o", names[2], "--json"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        size = Path(names[2]).stat().st_size if not child.returncode else 0
    took, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    return Row(
        job=job,
        found=f"{took:.2f} s, {peak / 2**30:.2f} GiB, {size / 1e6:.1f} MB of moves",
        bar=f"{RESHARD_S:g} s, 1 GiB",
        holds=child.returncode == 0 and took <= RESHARD_S and peak <= RESHARD_BYTES,
    )


def replay_row() -> Row:
    """Replay the moves between all pairs of small plans on real shards."""
    base = small_base()
    plans = [None, *(small_plan(base, **fields) for fields in SMALL)]
    pairs = [(old, new) for old in plans for new in plans if old is not None or new is not None]
    wrong = sum(bool(replayed(moves_document(reshard(*pair), old="", new=""), *pair)) for pair in pairs)
    return Row(
        job="replay of moves on real shards of small models",
        found=f"{len(pairs) - wrong} of {len(pairs)} pairs bit for bit",
        bar="all",
        holds=not wrong,
    )
