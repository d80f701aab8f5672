"""The search of mixed clusters against the integer programs that state it, on small cases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mixed_integer_program import least_pipeline_s, least_shares_s

from meshwright.catalog.model_entry import ModelEntry
from meshwright.planner.mixed.chain_configs import configurations
from meshwright.planner.mixed.chain_cut import best_chain_cut, stages_of
from meshwright.planner.mixed.chain_members import members_of
from meshwright.planner.mixed.laws import Laws, best_shares, least_s
from meshwright.planner.mixed.planning import asked_of, mixed_inputs

JOB = {"sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05}
LIMITS = {"max": {"context_parallel": 1, "tensor_parallel": 2}}


@pytest.mark.parametrize(("batch", "share", "layers"), [(16, 1.0, 6), (6, 1.0, 7), (32, 0.06, 6)])
def test_layers_are_dealt_as_the_integer_program_deals_them(
    toy_model: Callable[..., ModelEntry], batch: int, share: float, layers: int
) -> None:
    """Both ways of messages, few micro-batches and many, with memory that holds everything, and that doesn't."""
    entry = toy_model(layers=layers, hidden=2048, heads=16, ffn_hidden=8192)
    inputs = mixed_inputs(
        entry, "selene:4+dgx-h100:4", links=["100 Gb/s, 0.1 ms"], global_batch=batch, limits=LIMITS, **JOB
    )
    asked = asked_of(inputs)
    limits = [round(share * limit) for limit in asked.memory_limits_bytes]
    members, known, compared = members_of(asked.jobs, asked.limits, limits), dict[Any, Any](), 0
    for found in configurations(members, asked.islands.links, share=float(batch), below_s=np.inf):
        for row in range(0, len(found), 2):
            total = -(-batch // int(found.sequences[row]))
            several = {"total": total, "memory_limits_bytes": limits, "below_s": 1e3, "known": known}
            solved, stages = best_chain_cut(found, row, **several), stages_of(found, row, **several)
            assert stages is not None
            expected_s = least_pipeline_s(stages, total) + stages.job.stack.step_overhead
            if solved.cut is None:
                assert np.isinf(expected_s)
                continue
            assert solved.cut.step_time_s == pytest.approx(expected_s, rel=1e-6)
            assert solved.bound_s == pytest.approx(expected_s, rel=1e-6)
            compared += 1
    assert compared > 4


@pytest.mark.parametrize("seed", range(12))
def test_batches_are_shared_as_the_integer_program_shares_them(seed: int) -> None:
    """Two or three parties of a few layouts: layouts, micro-batches in rounds, and smaller last ones."""
    draw = np.random.default_rng(seed)
    parties, batch = [], int(draw.integers(20, 90))
    for _ in range(2 + seed % 2):
        count = int(draw.integers(1, 5))
        each_s = draw.uniform(0.5, 3.0, count)
        quantum = draw.choice([1, 1, 2], count)
        tails_s = np.where(quantum == 1, np.array([[0.6], [0.35]]) * each_s, np.inf)
        parties.append(
            Laws(
                sequences=draw.choice([2, 4, 8, 16], count),
                quantum=quantum,
                fixed_s=draw.uniform(0.0, 2.0, count),
                each_s=each_s,
                exposed_s=np.zeros(count),
                tails_s=tails_s,
                share=float(batch) / 2,
                rest_s=np.inf,
                fastest=1e3,
            )
        )
    found, bound_s = best_shares(parties, batch=batch, sizes=[np.maximum(own.sequences // 2, 1) for own in parties])
    expected_s = least_shares_s(parties, batch=batch)
    assert least_s(parties, batch=batch) == pytest.approx(expected_s, rel=1e-6)
    assert bound_s <= expected_s * (1 + 1e-6)
    if found is not None:
        assert found.step_time_s <= expected_s * (1 + 1e-6)
        assert sum(found.sequences) == batch
