"""`meshwright offload`: its answer, its plan file, what launchers are told of it, and what is wrong with a question."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from offload_jobs import FILES, JOBS
from typer.testing import CliRunner, Result

from meshwright.catalog.errors import Infeasible, InputError, MeshwrightError, MissingData
from meshwright.catalog.lookup import device_named, find_cluster
from meshwright.cli.app import app
from meshwright.cli.render.units import shown_seconds
from meshwright.planner import check_plan, emit, load_plan, plan_offload
from meshwright.planner.check import replan
from meshwright.planner.offload import OffloadPlan
from meshwright.planner.offload.decision import Choice
from meshwright.planner.offload.simulation import simulated
from meshwright.planner.offload.targets.deepspeed import resident_subgroups
from meshwright.planner.offload.targets.megatron import fraction_of
from meshwright.planner.plan_file import read_plan
from meshwright.planner.verification import verify

LAYOUT = {"data_parallel": 8, "zero_stage": 3, "zero_shard": 8}
JOB: dict[str, Any] = {"global_batch": 16, "sequence_length": 2048, "stack": "deepspeed-zero3"}
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in JOB}
QUESTION = (
    "llama-2-70b",
    "dgx-h100:8",
    "--global-batch",
    "16",
    "--sequence-length",
    "2048",
    "--stack",
    "deepspeed-zero3",
)


def asked(tmp_path: Path, *more: str) -> Result:
    file = tmp_path / "layout.yaml"
    file.write_text(yaml.safe_dump(LAYOUT), "utf-8")
    return CliRunner().invoke(app, ["offload", *QUESTION, "--layout", str(file), *more])


def planned(**more: Any) -> Any:  # noqa: ANN401 - arguments of the library
    question: dict[str, Any] = {
        "global_batch": 16,
        "sequence_length": 2048,
        "stack": "deepspeed-zero3",
        "layout": LAYOUT,
    }
    return plan_offload("llama-2-70b", "dgx-h100:8", **question | more)


@cache
def told(target: str) -> OffloadPlan:
    """The plan for a target, made once."""
    found: OffloadPlan = planned(target=target)
    return found


def error_of(result: Result) -> MeshwrightError:
    assert isinstance(result.exception, MeshwrightError), result.output
    return result.exception


def test_the_document(tmp_path: Path) -> None:
    found = json.loads(asked(tmp_path, "--json").stdout)
    assert found["gap"] == pytest.approx(found["step_time_s"] / found["lower_bound_s"] - 1, abs=1e-6)
    assert sum(found["optimizer"].values()) == pytest.approx(1)
    assert sum(found["breakdown"].values()) == pytest.approx(found["step_time_s"])
    assert len(found["activations"]) == len(found["parameters"]) == 80
    assert set(found["activations"][0].values()) <= {"keep", "offload", "recompute"}
    assert found["memory_bytes"]["device"] <= found["budget_bytes"]
    assert found["baselines"]["full_recompute"] is None
    known = [seconds for seconds in found["baselines"].values() if seconds is not None]
    assert len(known) == 4
    assert found["step_time_s"] <= min(known)
    assert 0 < found["linear_program_seconds"] < found["seconds"]


@pytest.mark.parametrize("job", [JOBS[0], JOBS[4]], ids=lambda job: job.name)
def test_jobs_hold_their_bars(job: Any) -> None:  # noqa: ANN401 - a job
    found = job.plan()
    events = simulated(found.problem, found.chosen.decision)
    assert found.gap <= 0.01
    assert events.step_time_s == pytest.approx(found.step_time_s, rel=0.03)
    assert events.device_bytes <= found.problem.memory.limit * (1 + 1e-9)
    assert events.host_bytes <= found.problem.host.memory_bytes * (1 + 1e-9)
    assert all(one is None or found.step_time_s <= one.step_time_s for one in found.baselines.values())


def test_the_smallest_budget_that_is_named_would_do(tmp_path: Path) -> None:
    error = error_of(asked(tmp_path, "--memory-budget", "5 GiB"))
    assert isinstance(error, Infeasible)
    assert error.exit_code == 4
    budget = error.hint.split('"')[1]
    assert asked(tmp_path, "--memory-budget", budget, "--json").exit_code == 0
    less = f"{float(budget.split()[0]) - 0.2} GiB"
    assert isinstance(error_of(asked(tmp_path, "--memory-budget", less)), Infeasible)


@pytest.mark.parametrize("target", ["megatron", "torch"])
def test_the_smallest_budget_of_a_target_would_do(tmp_path: Path, target: str) -> None:
    error = error_of(asked(tmp_path, "--memory-budget", "24 GiB", "--target", target))
    assert isinstance(error, Infeasible)
    assert f"nothing that {target} can express fits" in error.message
    assert planned(target=target, memory_budget=error.hint.split('"')[1]).chosen.fits


def test_the_smallest_host_memory_that_is_named_would_do(tmp_path: Path) -> None:
    error = error_of(asked(tmp_path, "--host-memory", "100 GiB"))
    assert isinstance(error, Infeasible)
    assert asked(tmp_path, "--host-memory", error.hint.split('"')[1], "--json").exit_code == 0


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        (("--memory-budget", "40"), InputError, "memory_budget: '40' is not a number with one of its units"),
        (("--memory-budget", "-3 GiB"), InputError, "memory_budget"),
        (("--memory-budget", "90 GiB"), InputError, "90 GiB isn't from one byte to the 79.6 GiB that there are"),
        (("--host-memory", "3 TiB"), InputError, "3 TiB isn't from one byte to the 2048.0 GiB that there are"),
        (("--mode", "zeroth-order", "-o", "plan.yaml"), InputError, "a plan file is of training, not of zeroth-order"),
        (("--mode", "reading"), InputError, "no mode is called 'reading'"),
        (("--host-memory", "much"), InputError, "host_memory: 'much'"),
        (("--target", "nemo"), InputError, "no target is called 'nemo'"),
        (("--nvme",), MissingData, "host.nvme"),
        (("--plan", "plan.yaml"), InputError, "give one of --layout FILE and --plan FILE"),
    ],
)
def test_questions_that_are_wrong(tmp_path: Path, more: tuple[str, ...], kind: type[Exception], words: str) -> None:
    error = error_of(asked(tmp_path, *more))
    assert isinstance(error, kind)
    assert words in error.message


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"data_parallel": 0}, "data_parallel"),
        ({"data_paralel": 8}, "data_paralel"),
        ({"data_parallel": 16}, "needs 16 devices"),
        ({"data_parallel": 8, "micro_batch": 3}, "micro-batches don't make up the global batch"),
    ],
)
def test_layouts_that_are_wrong(layout: dict[str, int], words: str) -> None:
    with pytest.raises(InputError) as caught:
        planned(layout=layout)
    assert words in caught.value.message


def test_hosts_without_bandwidths_are_named() -> None:
    device = device_named("h100-sxm-80gb")
    for field in ("memory_bandwidth", "link_bandwidth", "update"):
        host = device.host.model_copy(update={field: None})
        cluster = find_cluster("dgx-h100:8")
        own = cluster.model_copy(update={"device": device.model_copy(update={"host": host})})
        with pytest.raises(MissingData, match=rf"host\.{field}"):
            plan_offload("llama-2-70b", own, layout=LAYOUT, **JOB)


def test_calibration_alone_and_beside_a_question(tmp_path: Path) -> None:
    runs = (FILES / "deep_optimizer_states.csv").read_text("utf-8").splitlines()
    file = tmp_path / "h100.csv"
    file.write_text("\n".join([runs[0], *(row for row in runs if row.startswith("h100"))]), "utf-8")
    (fit,) = json.loads(CliRunner().invoke(app, ["offload", "--calibrate", str(file), "--json"]).stdout)
    assert fit["runs"] == 18
    assert fit["median_error"] < 0.05
    with_own = json.loads(asked(tmp_path, "--calibrate", str(file), "--json").stdout)
    # The catalog's are fitted to the same runs, with its link and memory in place of the machine's.
    assert with_own["step_time_s"] == pytest.approx(
        json.loads(asked(tmp_path, "--json").stdout)["step_time_s"], rel=0.03
    )
    error = error_of(asked(tmp_path, "--calibrate", str(FILES / "deep_optimizer_states.csv")))
    assert "is of 3 machines" in error.message


def test_drives_take_what_the_host_cannot_hold() -> None:
    device = device_named("h100-sxm-80gb")
    nvme = {"capacity": "2 TiB", "bandwidth": "3 GB/s", "source": "one drive a device"}
    host = type(device.host).model_validate(device.host.model_dump(mode="json") | {"nvme": nvme})
    own = find_cluster("dgx-h100:8").model_copy(update={"device": device.model_copy(update={"host": host})})
    question = JOB | {"layout": LAYOUT, "host_memory": "400 GiB"}
    with pytest.raises(Infeasible):
        plan_offload("llama-2-70b", own, **question)
    found = plan_offload("llama-2-70b", own, nvme=True, **question)
    assert found.optimizer["nvme"] > 0
    assert found.memory_bytes["nvme"] > 0
    # DeepSpeed has all of the optimizer's states on drives, or none; others can't be told of drives.
    all_or_none = plan_offload("llama-2-70b", own, nvme=True, target="deepspeed", **question)
    assert all_or_none.optimizer["nvme"] == 1
    assert all_or_none.settings["zero_optimization"]["offload_optimizer"]["device"] == "nvme"
    assert "ratio" not in all_or_none.settings["zero_optimization"]["offload_optimizer"]
    assert all_or_none.settings["aio"]["queue_depth"] >= 1
    with pytest.raises(Infeasible, match="nothing that megatron can express fits"):
        plan_offload("llama-2-70b", own, nvme=True, target="megatron", **question)


@pytest.mark.parametrize("target", ["deepspeed", "deep-optimizer-states", "megatron", "torch"])
def test_targets_cost_something_and_never_win(target: str) -> None:
    found = told(target)
    assert found.slower_than_free >= 0
    assert found.chosen.fits
    assert found.settings


def test_deepspeed_is_told_a_ratio_that_it_rounds_to_what_was_meant() -> None:
    found = told("deepspeed")
    zero = found.settings["zero_optimization"]
    # As DeepSpeed joins whole tensors in order, and keeps the first of the groups.
    groups, filled = [], 0.0
    for tensor in found.problem.optimizer.tensors:
        filled += tensor
        if filled >= zero["sub_group_size"]:
            groups.append(filled)
            filled = 0.0
    groups += [filled] if filled else []
    number = resident_subgroups(zero["offload_optimizer"]["ratio"], len(groups))
    assert sum(groups[:number]) / sum(groups) == pytest.approx(found.optimizer["resident"], rel=1e-6)
    assert sum(groups) == pytest.approx(found.problem.optimizer.parameters)
    assert found.optimizer["streamed"] == 0
    assert "prefetch_optimizer" not in zero["offload_optimizer"]


def test_strides_are_told_to_deep_optimizer_states() -> None:
    found = told("deep-optimizer-states")
    optimizer = found.settings["zero_optimization"]["offload_optimizer"]
    shares = found.optimizer
    assert optimizer["prefetch_optimizer"] == 1
    assert optimizer["prefetch_optimizer_gap"] == round((shares["cpu"] + shares["streamed"]) / shares["streamed"])


@pytest.mark.parametrize(("groups", "disabled"), [(7, 3), (316, 5), (316, 0), (79, 78)])
def test_megatron_rounds_a_fraction_of_groups_to_what_was_meant(groups: int, disabled: int) -> None:
    assert int(groups * (1 - fraction_of(groups, disabled))) == disabled


def test_the_plan_file_is_a_plan_that_launchers_are_told(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    shown = asked(tmp_path, "--target", "deepspeed", "-o", str(file))
    assert shown.exit_code == 0
    assert "Without a plan" in shown.stdout
    assert "offload_optimizer" in shown.stdout
    plan = load_plan(file)
    assert plan.offload is not None
    assert not any(check.failures for check in verify(plan))
    assert check_plan(plan) == ()
    emitted = json.loads(emit(plan, "deepspeed").files["deepspeed.json"])
    told = plan.offload.settings["zero_optimization"]
    assert emitted["zero_optimization"]["offload_optimizer"] == told["offload_optimizer"]
    assert emitted["zero_optimization"]["overlap_comm"] is not None
    with pytest.raises(InputError, match="can't be told what was decided for deepspeed"):
        emit(plan, "torch")
    again = CliRunner().invoke(app, ["offload", "--plan", str(file), "--target", "torch", "--json"])
    assert json.loads(again.stdout)["target"] == "torch"
    edited = yaml.safe_load(file.read_text("utf-8"))
    edited["offload"]["optimizer"]["cpu"] /= 2
    file.write_text(yaml.safe_dump(edited), "utf-8")
    with pytest.raises(InputError, match=r"offload\.optimizer: has shares that don't sum to 1"):
        load_plan(file)
    broken = read_plan(file)
    assert [check.name for check in verify(broken) if check.failures] == ["offload"]
    assert check_plan(broken) == ("offload.optimizer: has shares that don't sum to 1",)
    faster = plan.offload.model_copy(update={"step_time_s": plan.offload.lower_bound_s / 2})
    (check,) = [one for one in verify(plan.model_copy(update={"offload": faster})) if one.failures]
    assert [failure.path for failure in check.failures] == ["offload.step_time_s"] * 2
    with pytest.raises(InputError, match="can't be decided again from the inputs alone"):
        replan(plan)


def test_a_split_is_explained_before_the_step_without_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    asked(tmp_path, "-o", str(file))
    offload = load_plan(file).offload
    assert offload is not None
    shown = CliRunner().invoke(app, ["explain", str(file)]).stdout
    with_, _, without = shown.partition("All that follows is without offloading")
    assert f"With offloading the step takes {shown_seconds(offload.step_time_s)}" in with_
    assert "The step is bound by" in without
    document = json.loads(CliRunner().invoke(app, ["explain", str(file), "--json"]).stdout)
    assert document["offload"]["step_time_s"] == offload.step_time_s


def test_torch_gets_a_policy_of_each_layer() -> None:
    found = told("torch")
    policy = found.settings["checkpoint_policy"]
    names = {"save": Choice.KEEP, "offload": Choice.OFFLOAD, "recompute": Choice.RECOMPUTE}
    assert [[names[word] for word in layer.values()] for layer in policy] == found.chosen.decision.choices.tolist()


SMALL = ("plan", "llama-2-13b", "selene:1", "--global-batch", "8", "--sequence-length", "2048")


def test_plan_offloads_where_nothing_fits_without(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    found = CliRunner().invoke(app, [*SMALL, "--json", "-o", str(file)])
    document = json.loads(found.stdout)
    assert document["offload"]["memory_bytes"]["device"] <= document["predicted"]["memory_limit_bytes"]
    assert document["predicted"]["peak_memory_bytes"] > document["predicted"]["memory_limit_bytes"]
    assert load_plan(file).offload is not None
    never = CliRunner().invoke(app, [*SMALL, "--offload", "never"])
    assert isinstance(never.exception, Infeasible)


def test_plan_takes_the_faster_way_where_both_fit() -> None:
    command = ("plan", "megatron-1.7b", "selene:1", "--global-batch", "8", "--sequence-length", "1024", "--json")
    plain = json.loads(CliRunner().invoke(app, command).stdout)
    auto = json.loads(CliRunner().invoke(app, [*command, "--offload", "auto"]).stdout)
    steps = [one.get("offload", one["predicted"])["step_time_s"] for one in (plain, auto)]
    assert "offload" not in plain
    assert steps[1] <= steps[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--objective", "memory"), "is for the objective time, not for memory"),
        (("--target", "torchtitan"), "torchtitan can't be told what is offloaded"),
        (("--offload", "always"), "no way to offload is called 'always'"),
        (("--pareto",), "--pareto is of layouts that don't offload"),
    ],
)
def test_ways_of_offloading_that_a_plan_cannot_have(more: tuple[str, ...], words: str) -> None:
    offload = () if "--offload" in more else ("--offload", "auto")
    error = error_of(CliRunner().invoke(app, [*SMALL, *offload, *more]))
    assert isinstance(error, InputError)
    assert words in error.message


def test_a_plan_that_is_stopped_early_offloads_no_faster() -> None:
    commands = ([*SMALL, "--time-limit", limit, "--json"] for limit in ("1 ms", "1 h"))
    stopped, whole = (json.loads(CliRunner().invoke(app, command).stdout) for command in commands)
    assert stopped["offload"]["memory_bytes"]["device"] <= stopped["predicted"]["memory_limit_bytes"]
    assert stopped["offload"]["step_time_s"] >= whole["offload"]["step_time_s"]


def test_an_empty_front_is_said_to_be() -> None:
    shown = CliRunner().invoke(app, [*SMALL, "--pareto"]).stdout
    assert "no layout fits without offloading" in " ".join(shown.split())


def test_a_plan_is_for_what_its_launcher_can_be_told() -> None:
    """What an objective or a launcher can't do is told as what it is without offloading: nothing fits."""
    found = json.loads(CliRunner().invoke(app, [*SMALL, "--target", "deepspeed", "--json"]).stdout)
    assert found["offload"]["target"] == "deepspeed"
    assert isinstance(error_of(CliRunner().invoke(app, [*SMALL, "--target", "torchtitan"])), Infeasible)


def test_a_plan_that_cannot_be_written_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshwright.planner.plan_of", pytest.fail)
    error = error_of(CliRunner().invoke(app, [*SMALL, "-o", str(tmp_path / "missing" / "plan.yaml")]))
    assert isinstance(error, InputError)
    assert "there is no folder" in error.message


def test_nothing_fits_is_said_with_why_offloading_does_not_help() -> None:
    for more, why in ((("--target", "torchtitan"), "can't be told what is offloaded"),
                      (("--memory-headroom", "0.99"), "nothing fits, even with all that can leave")):  # fmt: skip
        error = error_of(CliRunner().invoke(app, [*SMALL, *more]))
        assert isinstance(error, Infeasible)
        assert why in error.hint


def test_a_launcher_that_lacks_a_stage_of_zero_is_offloaded_to() -> None:
    """FSDP2 has no ZeRO-1, so that there is none of it to look for."""
    job = ("llama-2-7b", "pcie-box:1", "--global-batch", "4", "--sequence-length", "2048", "--json")
    found = json.loads(CliRunner().invoke(app, ["plan", *job, "--target", "fsdp2"]).stdout)
    assert found["offload"]["target"] == "torch"


@pytest.mark.parametrize("fixed", [(), ("--fix", "micro_batch=8")])
def test_the_micro_batch_is_halved_while_that_is_faster(tmp_path: Path, fixed: tuple[str, ...]) -> None:
    """Devices of any memory run the largest micro-batch fastest, where none of what it keeps has to leave them."""
    job = ("llama-2-7b", "pcie-box:1", "--global-batch", "16", "--sequence-length", "2048", "--json")
    found = json.loads(CliRunner().invoke(app, ["plan", *job, *fixed]).stdout)
    assert found["layout"]["micro_batch"] == (8 if fixed else 4)
    file = tmp_path / "layout.yaml"
    for micro_batch in () if fixed else (2, 16):
        file.write_text(f"{{data_parallel: 1, micro_batch: {micro_batch}}}", "utf-8")
        other = json.loads(CliRunner().invoke(app, ["offload", *job, "--layout", str(file)]).stdout)
        assert found["offload"]["step_time_s"] < other["step_time_s"]


def test_parameters_stream_where_only_forward_passes_run() -> None:
    """A 70B model on one device: what doesn't fit of its weights comes over the link for each micro-batch."""
    question = {"layout": {}, "mode": "inference", "global_batch": 8}
    found, twice = planned(**question), planned(**question | {"mode": "zeroth-order"})
    link = found.problem.host.copy_bytes_per_s
    weights = float(found.problem.layers.weight_bytes.sum())
    stays = found.problem.memory.limit - found.problem.memory.passes - found.problem.memory.loss
    assert found.step_time_s >= 8 * (weights - stays) / link
    assert found.step_time_s == pytest.approx(8 * sum(found.streamed_shares) / 80 * weights / link, rel=0.05)
    assert found.gap < 0.01
    assert found.memory_bytes["host"] == pytest.approx(sum(found.streamed_shares) / 80 * weights)
    assert set(found.parameters) == {"streamed"}
    assert found.activations[0] == {}
    # Both runs of a layer are while it is there: more compute, behind the same link.
    assert twice.step_time_s == pytest.approx(found.step_time_s, rel=0.05)
    assert twice.problem.layers.forward_s == pytest.approx(2 * found.problem.layers.forward_s)
    for one in (found, twice):
        events = simulated(one.problem, one.chosen.decision)
        assert events.step_time_s == pytest.approx(one.step_time_s, rel=0.03)
        assert events.device_bytes <= one.problem.memory.limit * (1 + 1e-9)


def test_inference_that_fits_takes_its_forward_passes() -> None:
    found = planned(mode="inference", global_batch=16)
    layers = found.problem.layers
    assert found.step_time_s >= float(layers.forward_s.sum()) * found.problem.passes * 2
    assert found.step_time_s < planned(memory_budget="80 GiB").step_time_s / 2
    assert set(found.parameters) == {"sharded"}
