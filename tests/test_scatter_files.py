"""What `meshwright scatter` reads and writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from meshwright.catalog.errors import Infeasible, InputError, MeshwrightError
from meshwright.cli.app import app
from meshwright.planner.sequences import Mode, Scattered, SequenceScatterer, uniform_costs
from meshwright.planner.sequences.degrees import any_degrees, is_chain
from meshwright.planner.sequences.formats import Format, steps_text
from meshwright.planner.sequences.lengths_file import read_lengths
from meshwright.planner.sequences.measured_groups import MeasuredGroup, fitted_costs

LENGTHS = [900, 500, 500, 300, 200, 100, 100, 100, 40, 8]
COSTS = uniform_costs(
    ranks=8,
    node_ranks=4,
    tokens_a_rank=600,
    square_s=1e-6,
    token_s=1e-3,
    fixed_s=0.02,
    inside_s=1e-4,
    outside_s=4e-4,
)


@pytest.fixture
def split() -> Scattered:
    return SequenceScatterer(costs=COSTS, mode=Mode.LOCKSTEP)(LENGTHS)


@pytest.mark.parametrize(
    ("name", "text", "steps"),
    [
        ("a.txt", "3 4 5\n", [[3, 4, 5]]),
        ("a.txt", "3\n4\n5\n", [[3, 4, 5]]),
        ("a.csv", "3,4,5\n6,7\n", [[3, 4, 5], [6, 7]]),
        ("a.jsonl", '[3, 4]\n{"lengths": [5]}\n', [[3, 4], [5]]),
        ("a.csv", "length\n3\n4\n", [[3, 4]]),
        ("a.csv", '"3","4"\n"5",\n', [[3, 4], [5]]),
        ("a.txt", "\ufeff3 4\n\n 5 6\n", [[3, 4], [5, 6]]),
    ],
)
def test_lengths_are_read(tmp_path: Path, name: str, text: str, steps: list[list[int]]) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert [step.tolist() for step in read_lengths(file)] == steps


@pytest.mark.parametrize(
    ("array", "steps"), [(np.array([3, 4]), [[3, 4]]), (np.array([[3, 4], [5, 6]]), [[3, 4], [5, 6]])]
)
def test_arrays_are_read(tmp_path: Path, array: Any, steps: list[list[int]]) -> None:  # noqa: ANN401 - an array
    np.save(tmp_path / "a.npy", array)
    assert [step.tolist() for step in read_lengths(tmp_path / "a.npy")] == steps


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "holds no step"),
        ("a.txt", "3 x\n", "line 1: 'x' is not a length"),
        ("a.txt", "3 4\n5 0\n", "step 1: lengths.1: 0 is not a length"),
        ("a.txt", "3 nan\n", "nan is not a length"),
        ("a.jsonl", "[3]\n[]\n", "step 1: lengths: the batch is empty"),
        ("a.jsonl", '{"tokens": [3]}\n', "line 1: has no lengths"),
        ("a.jsonl", "[true]\n", "isn't a list of lengths"),
        ("a.jsonl", "[3\n", "line 1"),
        ("a.jsonl", "[[3, 4], [5]]\n", "lists in a list"),
        ("a.csv", "3,,5\n", "field 2 is empty"),
        ("a.csv", '"1,000",2\n', "'1,000' is not a length"),
        ("a.csv", "step,length\n1,500\n", "'step' is not a length"),
        ("a.txt", "99999999999999999999 3\n", "1e\\+20 is not a length: at most"),
        ("a.jsonl", "[3, 1" + 22 * "0" + "]\n", "lengths.1: 1e\\+22 is not a length: at most"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_lengths(file)


def test_objects_in_arrays_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="never loaded"):
        read_lengths(tmp_path / "a.npy")


def test_ours_says_all_but_how_long_it_took(split: Scattered) -> None:
    line = json.loads(steps_text(Format.OURS, [(split, LENGTHS)]))
    assert line["version"] == 1
    assert line["step_time_s"] == split.step_time_s
    assert "seconds" not in line
    sequences = [at for each in line["micro_batches"] for group in each["groups"] for at in group["sequences"]]
    assert sorted(sequences) == list(range(len(LENGTHS)))


def test_megatron_core_has_samples_by_rank(split: Scattered) -> None:
    groups = json.loads(steps_text(Format.MEGATRON_CORE, [(split, LENGTHS)]))
    assert len(groups) == len(split.micro_batches)
    assert all(len(ranks) == 8 for ranks in groups)
    for micro_batch, ranks in zip(split.micro_batches, groups, strict=True):
        for group in micro_batch:
            assert all(ranks[rank] == group.sequences.tolist() for rank in group.ranks)
        held = {at for samples in ranks for at in samples}
        # Megatron-Core counts the ranks that have a sample to know its group.
        assert all(sum(at in samples for samples in ranks) in (1, 2, 4, 8) for at in held)


def test_flexsp_has_lengths_by_degree(split: Scattered) -> None:
    micro_batches = json.loads(steps_text(Format.FLEXSP, [(split, LENGTHS)]))
    assert all(sum(degree for degree, _ in groups) <= 8 for groups in micro_batches)
    assert sorted(length for groups in micro_batches for _, own in groups for length in own) == sorted(LENGTHS)


def test_verl_has_whole_samples_only(split: Scattered) -> None:
    with pytest.raises(InputError, match="verl splits none"):
        steps_text(Format.VERL, [(split, LENGTHS)])
    lengths = [at % 7 * 50 + 10 for at in range(40)]
    whole = uniform_costs(ranks=8, node_ranks=4, tokens_a_rank=600, square_s=1e-6, token_s=1e-3, degrees=np.array([1]))
    partitions = json.loads(steps_text(Format.VERL, [(SequenceScatterer(costs=whole)(lengths), lengths)]))
    assert sorted(at for own in partitions for at in own) == list(range(40))
    loads = [sum(1e-6 * lengths[at] ** 2 + 1e-3 * lengths[at] for at in own) for own in partitions]
    assert max(loads) < 1.02 * np.mean(loads)


def test_no_rank_is_empty() -> None:
    found = SequenceScatterer(costs=COSTS, no_empty_rank=True)([2000, 900, 300, 300, 200])
    assert all(sum(group.degree for group in groups) == 8 for groups in found.micro_batches)
    assert SequenceScatterer(costs=COSTS, no_empty_rank=True)([5]).micro_batches[0][0].degree == 8
    alone = uniform_costs(ranks=8, node_ranks=4, tokens_a_rank=600, square_s=1e-6, token_s=1e-3, degrees=np.array([1]))
    with pytest.raises(Infeasible, match="1 sequences can't give each of 8 ranks"):
        SequenceScatterer(costs=alone, no_empty_rank=True)([5])


def test_any_degree_is_whole_nodes_or_parts_of_one() -> None:
    assert any_degrees(48, 8).tolist() == [1, 2, 4, 8, 16, 24, 48]
    assert any_degrees(12, 6).tolist() == [1, 3, 6, 12]
    assert not is_chain(any_degrees(48, 8))


def test_any_degree_can_be_faster() -> None:
    # One sequence on three nodes together, where powers of two leave one idle.
    powers, divisors = (
        SequenceScatterer(
            costs=uniform_costs(
                ranks=24, node_ranks=8, tokens_a_rank=200, square_s=1e-6, token_s=1e-3, degrees=np.array(degrees)
            )
        )([2300]).step_time_s
        for degrees in ([1, 2, 4, 8, 16], any_degrees(24, 8))
    )
    assert powers == pytest.approx((1e-6 * 2300**2 + 1e-3 * 2300) / 16)
    assert divisors == pytest.approx((1e-6 * 2300**2 + 1e-3 * 2300) / 24)


def test_measured_groups_give_back_their_coefficients() -> None:
    groups = [
        MeasuredGroup(
            degree=degree,
            lengths=[length] * count,
            time_s=(
                2e-9 * count * length**2
                + (3e-5 + (0 if degree == 1 else 1e-6 if degree <= 4 else 4e-6)) * count * length
            )
            / degree
            + 0.05,
        )
        for degree in (1, 2, 4, 8)
        for length, count in ((500, 8), (20_000, 1), (4000, 3))
    ]
    fitted = fitted_costs(COSTS, groups)
    assert fitted.median_error < 1e-6
    assert fitted.costs.attention[0].pair_s == pytest.approx(4e-9)
    assert (fitted.costs.pieces[:, 0, 1] * [1, 2, 4, 8]).tolist() == pytest.approx([3e-5, 3.1e-5, 3.1e-5, 3.4e-5])
    assert fitted.costs.fixed_s.tolist() == pytest.approx([0.05] * 4)
    assert fitted.costs.most_tokens.tolist() == COSTS.most_tokens.tolist()
    assert (fitted.groups, fitted.unmeasured) == (12, ())
    with pytest.raises(InputError, match="needs at least 5"):
        fitted_costs(COSTS, groups[:4])
    with pytest.raises(InputError, match="too alike"):
        fitted_costs(COSTS, groups[:1] * 6)


def test_a_poor_fit_is_told(tmp_path: Path) -> None:
    lengths, timed = tmp_path / "lengths.txt", tmp_path / "timed.jsonl"
    lengths.write_text("300 500 3000\n")
    # As times fall with lengths, neither squares nor tokens tell anything of them.
    times = (9.0, 3.0, 1.0, 0.2, 0.1)
    rows = [{"degree": 1, "lengths": [1000 * at], "time_s": seconds} for at, seconds in enumerate(times, start=1)]
    timed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = run(lengths, "llama-3.1-8b", "dgx-h100:16", "--calibrate", timed)
    assert "Fitted to 5 timed groups" in text
    assert "warning: times aren't well told" in text
    assert "warning: none timed of groups of several ranks of a node or groups of several nodes" in text
    fit = json.loads(run(lengths, "llama-3.1-8b", "dgx-h100:16", "--calibrate", timed, "--json"))["fit"]
    # The fixed part c = T for all: the least sum of (c / t - 1)^2 is at sum(1/t) / sum(1/t^2).
    single_s = sum(1 / seconds for seconds in times) / sum(1 / seconds**2 for seconds in times)
    assert fit["median_error"] == pytest.approx(sorted(abs(single_s / seconds - 1) for seconds in times)[2])
    assert fit["worst_error"] == pytest.approx(max(abs(single_s / seconds - 1) for seconds in times))


def test_offloading_lets_groups_be_smaller() -> None:
    without, offloaded = (
        SequenceScatterer.of("llama-3.1-8b", "dgx-h100:16", offload=offload).costs for offload in (False, True)
    )
    assert (offloaded.most_tokens > 3 * without.most_tokens).all()
    # Within device memory nothing is copied; beyond it what is copied takes its time on the host's link, if that is
    # longer than the compute beside it.
    tokens = without.most_tokens[:1].astype(float)
    one, work = np.array([0]), np.zeros(1)
    assert offloaded.group_s(one, work, tokens) == pytest.approx(without.group_s(one, work, tokens))
    assert offloaded.group_s(one, work, 4 * tokens) > without.group_s(one, work, 4 * tokens)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["scatter", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_command(tmp_path: Path) -> None:
    file, output = tmp_path / "lengths.txt", tmp_path / "steps.jsonl"
    file.write_text("300 500 30000 1200 90 45 6000\n100 4000\n")
    text = run(file, "llama-3.1-8b", "dgx-h100", "--devices", 16, "-o", output)
    assert "38,135" in text
    steps = [json.loads(line) for line in output.read_text().splitlines()]
    assert [step["sequences"] for step in steps] == [7, 2]
    document = json.loads(run(file, "llama-3.1-8b", "dgx-h100:16", "--json"))
    wanted = {
        "mode",
        "micro_batches",
        "step_time_s",
        "lower_bound_s",
        "certified",
        "gap",
        "homogeneous_step_time_s",
        "seconds",
    }
    assert set(document["steps"][0]) == wanted
    assert set(document["steps"][0]["micro_batches"][0]["groups"][0]) == {"ranks", "sequences", "tokens", "time_s"}
    assert [step["step_time_s"] for step in document["steps"]] == [step["step_time_s"] for step in steps]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--devices", 0), "0 devices"),
        (("--devices", 12, "--tensor-parallel", 8), "can't be cut into groups of 8"),
        (("--devices", 16, "--zero-stage", 3, "--mode", "free"), "wait for one another"),
        (("--devices", 16, "--format", "verl"), "no file is written"),
        (("--devices", 16, "--format", "flexsp", "--mode", "free", "-o", "x"), "wait for one another"),
        (("--devices", 16, "--max-degree", 1), "sequence 1 has 70,000 tokens; it would need"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("100 70000\n")
    with pytest.raises(MeshwrightError, match=message):
        run(file, "llama-3.1-8b", "dgx-h100", *options)


def test_frameworks_with_barriers_get_splits_with_barriers(tmp_path: Path) -> None:
    file, output = tmp_path / "lengths.txt", tmp_path / "steps.jsonl"
    file.write_text(" ".join(map(str, [40_000, 30_000, *range(1000, 6000, 100)])) + "\n")
    assert "Groups of step 0, free" in run(file, "llama-3.1-8b", "dgx-h100:16")
    text = run(file, "llama-3.1-8b", "dgx-h100:16", "--format", "megatron-core", "-o", output)
    assert "Groups of step 0, lockstep" in text
    free = SequenceScatterer(costs=COSTS, mode=Mode.FREE)(LENGTHS)
    with pytest.raises(InputError, match="wait for one another"):
        steps_text(Format.FLEXSP, [(free, LENGTHS)])


def test_the_lengths_are_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("300 500\n")
    with pytest.raises(InputError, match="one of the files that are read"):
        run(file, "llama-3.1-8b", "dgx-h100:16", "-o", file)
    assert file.read_text() == "300 500\n"


def test_linear_attention_is_said_to_be_another_model(tmp_path: Path) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("300 5000\n")
    text = run(file, "llama-3.1-8b", "dgx-h100:16", "--method", "linear-attention")
    assert "Times are of llama-3.1-8b if its attention were linear" in text
    assert "if its attention" not in run(file, "llama-3.1-8b", "dgx-h100:16")
