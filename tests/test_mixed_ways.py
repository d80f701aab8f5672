"""Ways of training that change the mathematics: their costs by hand, their schedules, and that none is used unasked."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from meshwright.catalog.errors import InputError
from meshwright.costmodels.island_links import Across, Edge, exchange_of
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameters import total_parameters
from meshwright.planner.job_inputs import inputs_of, job_of
from meshwright.planner.mixed.planning import plan_mixed
from meshwright.planner.mixed.ways import Allowed, Permission, exchange_ways, permissions
from meshwright.planner.mixed.ways.compression import compressed, layer_bits, layer_sizes
from meshwright.planner.mixed.ways.knapsack import BITS, least_bits
from meshwright.planner.mixed.ways.local_steps import co2, diloco, noloco
from meshwright.planner.mixed.ways.skipping import Pass, paths, schedule, skipped_stages, step_of
from meshwright.planner.verification.check import Outcome
from meshwright.planner.verification.mixed import verify_mixed

JOB = {"sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05}
LINK = Edge(between=(0, 1), bandwidth_bytes_per_s=1e9, latency_s=0.01)


@pytest.fixture(scope="module")
def job() -> Job:
    """Give a job of 8B on 8 H100s."""
    return job_of(inputs_of("llama-3.1-8b", "dgx-h100:8", global_batch=64, limits={}, **JOB))


def test_diloco_by_hand(job: Job) -> None:
    """32 layers are 11 fragments; 8.03e9 / 11 4-bit values over 1 GB/s, and two latencies, beside 5 of 55 steps."""
    way = diloco(job, [LINK], local_steps=55, step_s=0.05)
    count = total_parameters(job.model)
    each_s = count * 0.5 / 11 / 1e9 + 0.02
    assert way.settings["fragments"] == 11
    assert way.settings["fragment_s"] == pytest.approx(each_s)
    assert way.exchange.fixed_s == pytest.approx(11 / 55 * (each_s - 5 * 0.05))
    assert way.exchange.sent_bytes == pytest.approx(count * 0.5 * 2 / 55)
    assert diloco(job, [LINK], local_steps=55, step_s=1.0).exchange.fixed_s == 0.0


def test_diloco_needs_two_orders_of_magnitude_less_bandwidth(job: Job) -> None:
    assert diloco(job, [LINK], local_steps=100, step_s=1.0).settings["peak_rate_below_synchronous"] > 100


def test_noloco_and_co2_by_hand(job: Job) -> None:
    count = total_parameters(job.model)
    pair = noloco(job, [LINK], local_steps=50)
    assert pair.exchange.fixed_s == pytest.approx((count * 4 / 1e9 + 0.01) / 50)
    whole_s = exchange_of(job, 2, [LINK], Across.COPIES).gradients_s
    assert co2(job, 2, [LINK], local_steps=2, step_s=3.0).exchange.fixed_s == pytest.approx((whole_s - 6.0) / 2)
    assert co2(job, 2, [LINK], local_steps=1, step_s=100.0).exchange.fixed_s == 0.0


def test_compression_by_hand(job: Job) -> None:
    """One bit is a thirty-second of 4 bytes; a hundredth with indices a fiftieth: the latter is sent sooner."""
    whole = exchange_of(job, 2, [LINK], Across.COPIES)
    top = compressed(job, 2, [LINK], kept=0.01)
    assert "top-k" in top.trades
    assert top.exchange.sent_bytes == pytest.approx(whole.sent_bytes / 50)
    bit = compressed(job, 2, [LINK], kept=0.1)
    assert "1-bit" in bit.trades
    assert bit.exchange.sent_bytes == pytest.approx(whole.sent_bytes / 32)
    moved = total_parameters(job.model) * 16.125
    device = job.cluster.device
    rate = 8 * device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    assert bit.exchange.fixed_s == pytest.approx(moved / rate)


def test_levels_keep_to_their_budget_and_send_less_than_four_bits(job: Job) -> None:
    sizes, bits = layer_sizes(job), layer_bits(job)
    mean = np.dot(sizes, bits) / sum(sizes)
    assert mean < 4.0
    weights = np.array([1.0] * (len(sizes) - 1) + [0.1]) * sizes
    assert (weights * 4.0 ** -np.array(bits)).sum() <= (weights * 4.0**-4).sum() * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_knapsack_is_that_of_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 50, 4).tolist()
    errors = [
        [float(size * scale * 2.0**-bits) for bits in BITS] for size, scale in zip(sizes, random.random(4), strict=True)
    ]
    # Errors in whole steps of the budget, so that nothing is rounded.
    budget = 4000.0
    errors = [[float(np.ceil(error * 40)) for error in own] for own in errors]
    chosen = least_bits(sizes, errors, budget)
    every = [
        sum(size * BITS[option] for size, option in zip(sizes, options, strict=True))
        for options in product(range(len(BITS)), repeat=4)
        if sum(own[option] for own, option in zip(errors, options, strict=True)) <= budget
    ]
    assert sum(size * bits for size, bits in zip(sizes, chosen, strict=True)) == min(every)


def test_nothing_keeps_to_an_impossible_budget() -> None:
    assert least_bits([1, 1], [[10.0] * len(BITS)] * 2, 1.0) == (BITS[-1], BITS[-1])


@pytest.fixture(scope="module")
def passes() -> tuple[Pass, ...]:
    """Give a schedule of 8 stages and 24 micro-batches, of which each skips two stages."""
    return schedule([1.0, 1.2, 0.9, 1.0, 1.1, 1.0, 0.8, 1.0], [2.0] * 8, 24, share=0.25)


def test_passes_do_not_collide(passes: tuple[Pass, ...]) -> None:
    for stage in range(8):
        own = sorted((each.begins_s, each.ends_s) for each in passes if each.stage == stage)
        assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(own))


def test_each_micro_batch_goes_its_path_and_back(passes: tuple[Pass, ...]) -> None:
    for number, path in enumerate(paths(8, 24, share=0.25)):
        own = sorted((each for each in passes if each.micro_batch == number), key=lambda each: each.begins_s)
        assert all(first.ends_s <= second.begins_s + 1e-9 for first, second in pairwise(own))
        there, back = own[: len(path)], own[len(path) :]
        assert [each.backward for each in own] == [False] * len(path) + [True] * len(path)
        assert sorted(each.stage for each in there) == list(path)
        assert [each.stage for each in back] == [each.stage for each in there][::-1]
        assert (there[0].stage, there[-1].stage) == (0, 7)


def test_stages_are_skipped_alike() -> None:
    seen = Counter(stage for path in paths(8, 24, share=0.25) for stage in path)
    assert skipped_stages(8, percent=25) == 2
    assert seen[0] == seen[7] == 24
    assert {seen[stage] for stage in range(1, 7)} == {24 - 24 * 2 // 6}


def test_nothing_skipped_takes_no_less_than_its_busiest_stage() -> None:
    took = step_of(schedule([1.0] * 4, [2.0] * 4, 16, share=0.0))
    assert 16 * 3.0 <= took <= (16 + 3) * 3.0 + 1e-9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["dilloco"], "no way is called"),
        (["diloco:0"], "needs a whole number from 1"),
        (["skip-stages:80"], "needs a whole number from 1 to 50"),
        (["co2", "co2:2"], "allowed twice"),
    ],
)
def test_what_is_wrong_with_a_permission_is_told(given: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        permissions(given)
    assert raised.value.path == "allow"


def test_permissions_have_numbers() -> None:
    assert permissions(["diloco:50", "co2"]) == (
        Permission(way=Allowed.DILOCO, number=50),
        Permission(way=Allowed.CO2, number=1),
    )


def test_only_what_is_allowed_is_made(job: Job) -> None:
    allowed = permissions(["noloco", "compress"])
    ways = exchange_ways(job, allowed, parties=2, edges=[LINK], tree=[LINK], step_s=1.0)
    assert [way.name for way in ways] == ["noloco", "compress"]


def test_a_way_is_used_only_where_it_is_allowed_and_named() -> None:
    asked = {"global_batch": 64, "limits": {"fix": {"pipeline_parallel": 1}}} | JOB
    cluster, links = "selene:8+dgx-h100:8", ["4 Gb/s, 20 ms"]
    plain = plan_mixed("llama-3.1-8b", cluster, links=links, **asked)
    allowed = plan_mixed("llama-3.1-8b", cluster, links=links, allow=["diloco:50"], **asked)
    assert plain.mixed.way is None
    assert allowed.mixed.way is not None
    assert allowed.mixed.way.name == "diloco"
    assert "50 steps" in allowed.mixed.way.trades
    assert allowed.predicted.step_time_s < plain.predicted.step_time_s
    assert allowed.inputs.allow == ("diloco:50",)
    assert [check.name for check in verify_mixed(allowed) if check.outcome is not Outcome.OK] == []


def test_skipped_stages_make_a_pipeline_shorter() -> None:
    asked = {
        "global_batch": 64,
        "limits": {"fix": {"data_parallel": 1, "context_parallel": 1, "tensor_parallel": 2}},
    } | JOB
    cluster, links = "selene:8+selene:8", ["4 Gb/s, 1 ms"]
    plain = plan_mixed("llama-3.1-8b", cluster, links=links, **asked)
    allowed = plan_mixed("llama-3.1-8b", cluster, links=links, allow=["skip-stages:40"], **asked)
    assert plain.mixed.crossing == allowed.mixed.crossing == "pipeline"
    assert allowed.predicted.step_time_s < plain.predicted.step_time_s
    assert allowed.mixed.way is not None
    assert [check.name for check in verify_mixed(allowed) if check.outcome is not Outcome.OK] == []
