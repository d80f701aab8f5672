"""Emitting plans: what any target's files have in common, and what is refused."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from emitted_plans import PLANS, layout_of, plan_named
from typer.testing import CliRunner

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import LinearAttentionEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.cli.app import app
from meshwright.costmodels.layout import Recompute
from meshwright.planner import Plan, emit, load_plan, write_plan
from meshwright.planner.emission import CONSUMERS, EmitTarget, emit_target, write_emission
from meshwright.planner.emission.emitters import EMITTERS
from meshwright.planner.given_layout import plan_of_layout

EVERY = [(target, name) for target in EMITTERS for name in PLANS]
# The plans that a target runs as they are, where it isn't all of them.
RUN = {
    EmitTarget.MEGATRON_0_12: set(PLANS) - {"hsdp"},
    EmitTarget.TORCHTITAN: {"fsdp", "hsdp", "tensor-fsdp", "single-device", "pipeline-fsdp"},
    EmitTarget.DEEPSPEED: {"fsdp", "single-device"},
    EmitTarget.ACCELERATE: {"fsdp", "hsdp", "single-device"},
    EmitTarget.NANOTRON: {"single-device"},
    EmitTarget.TORCH: set(PLANS) - {"dense-3d", "interleaved", "hybrid-context", "moe-4d", "latent-attention"},
}


@pytest.mark.parametrize(("target", "name"), EVERY)
def test_scripts_are_bash_and_documents_yaml(target: EmitTarget, name: str, tmp_path: Path) -> None:
    emission = emit_or_none(plan_named(name), target)
    if emission is None:
        return
    for path in write_emission(emission, tmp_path / "out"):
        if path.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n", path], check=True)
            assert os.access(path, os.X_OK)
        if path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())


def emit_or_none(plan: Plan, target: EmitTarget):  # noqa: ANN201
    """Emit what the target can run; every refusal names the field."""
    try:
        return emit(plan, target)
    except InputError as error:
        return None if error.path.startswith(("layout.", "inputs.", "mesh.")) else pytest.fail(f"no field: {error}")


@pytest.mark.parametrize("target", EMITTERS)
def test_each_target_runs_what_it_should_and_says_what_it_lacks(target: EmitTarget) -> None:
    emitted = {name for name in PLANS if emit_or_none(plan_named(name), target) is not None}
    assert emitted == RUN.get(target, set(PLANS))


@pytest.mark.parametrize(("target", "name"), EVERY)
def test_the_same_plan_gives_the_same_bytes(target: EmitTarget, name: str) -> None:
    first, again = (emit_or_none(plan_named(name), target) for _ in range(2))
    assert (first and dict(first.files)) == (again and dict(again.files))


@pytest.mark.parametrize("target", EMITTERS)
def test_the_version_of_the_consumer_is_in_each_file_but_the_plan(target: EmitTarget) -> None:
    emission = emit(plan_named("single-device"), target)
    for name, text in emission.files.items():
        if name not in ("plan.yaml", "deepspeed.json"):  # JSON has no comments; DeepSpeed refuses keys it doesn't know
            assert CONSUMERS[target].version in text, name


def test_nodes_are_numbered_in_the_order_of_the_ranks() -> None:
    files = emit(plan_named("dense-3d"), "megatron").files
    assert "#SBATCH --nodes=128\n" in files["job.sbatch"]
    assert "NODE_RANK=$SLURM_NODEID" in files["job.sbatch"]
    assert "export NODES=128 DEVICES_PER_NODE=8" in files["run.sh"]
    job = yaml.safe_load(files["pytorchjob.yaml"])
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert (replicas["Master"]["replicas"], replicas["Worker"]["replicas"]) == (1, 127)
    container = replicas["Worker"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert yaml.safe_load(files["skypilot.yaml"])["num_nodes"] == 128


def test_a_script_of_several_nodes_wants_to_know_which_it_is(tmp_path: Path) -> None:
    write_emission(emit(plan_named("dense-3d"), "megatron"), tmp_path / "out")
    run = subprocess.run(
        ["bash", tmp_path / "out" / "run.sh"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert run.returncode != 0
    assert b"set NODE_RANK to the number of this node" in run.stderr


def test_a_folder_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    emission = emit(plan_named("single-device"), "megatron")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(InputError, match="is there already"):
        write_emission(emission, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    write_emission(emission, folder, force=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(emission.files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_emission_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emission = emit(plan_named("single-device"), "megatron")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_emission(emission, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "link"])
def test_nothing_but_a_folder_is_replaced(place: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "out"
    target.touch() if place == "file" else target.symlink_to(tmp_path / "there")
    with pytest.raises(InputError, match="isn't a folder"):
        write_emission(emit(plan_named("single-device"), "megatron"), target, force=True)


@pytest.mark.parametrize("named", ["..", "../..", "HERE", "HERE/.."])
def test_the_folder_that_one_is_in_is_never_replaced(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "project" / "plans"
    here.mkdir(parents=True)
    (here / "mine").touch()
    monkeypatch.chdir(here)
    with pytest.raises(InputError, match="is the folder that you are in, or holds it"):
        write_emission(emit(plan_named("single-device"), "megatron"), named.replace("HERE", str(here)), force=True)
    assert list(tmp_path.rglob("*")) == [tmp_path / "project", here, here / "mine"]


def test_devices_that_fill_no_whole_nodes_are_refused() -> None:
    plan = plan_named("fsdp")
    entry = plan.inputs.cluster.entry.model_copy(update={"devices_per_node": 3})
    cluster = plan.inputs.cluster.model_copy(update={"entry": entry})
    odd = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"cluster": cluster})})
    with pytest.raises(InputError, match="8 devices aren't whole nodes of 3"):
        emit(odd, "megatron")


def test_what_a_launcher_lacks_is_named_and_relaxed() -> None:
    plan = plan_of_layout(
        plan_named("dense-3d").inputs,
        layout_of(
            {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 8, "data_parallel": 16}
            | {"zero_stage": 1, "zero_shard": 16, "schedule": "zb-h1", "recompute": "selective"}
        ),
    )
    with pytest.raises(InputError, match=r"layout\.schedule: Megatron-LM has no zb-h1 schedule") as refusal:
        emit(plan, "megatron")
    assert "--relax" in refusal.value.hint
    emission = emit(plan, "megatron", relax=True)
    assert emission.relaxed == ("schedule: zb-h1 -> 1f1b",)
    assert emission.plan == plan_named("dense-3d")
    assert emission.slower_by == pytest.approx(
        emission.plan.predicted.step_time_s / plan.predicted.step_time_s - 1, rel=1e-12
    )


def test_what_no_layout_does_without_is_refused_also_when_relaxed() -> None:
    plan = plan_named("dense-3d")
    entry = plan.inputs.model.entry.model_copy(update={"embedding_norm": True})
    model = plan.inputs.model.model_copy(update={"entry": entry})
    normed = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"model": model})})
    with pytest.raises(InputError, match="has no norm behind the embedding"):
        emit(normed, "megatron", relax=True)


def test_what_no_layout_does_without_is_said_before_what_relaxing_mends() -> None:
    plan = plan_named("hsdp")
    with pytest.raises(InputError, match=r"layout\.zero_stage: Nanotron") as mendable:
        emit(plan, "nanotron")
    assert "--relax" in mendable.value.hint
    job = plan.inputs.job.model_copy(update={"precision": Precision.FP8})
    narrow = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"job": job})})
    for relax in (False, True):
        with pytest.raises(InputError, match=r"inputs\.job\.precision: Nanotron trains in bf16") as refusal:
            emit(narrow, "nanotron", relax=relax)
        assert refusal.value.hint == ""


def test_a_way_that_ends_nowhere_leaves_the_others() -> None:
    """Of a hybrid over 16 ranks, 8 key heads leave no Ulysses alone; gathering keys and values is left."""
    assert plan_named("hybrid-context").layout.context_parallel == 16
    emission = emit(plan_named("hybrid-context"), "torch", relax=True)
    assert emission.relaxed[:2] == ("context_method: hybrid -> all-gather", "ulysses_parallel: 8 -> 1")


@pytest.mark.parametrize("target", EMITTERS)
def test_no_launcher_has_linear_attention(target: EmitTarget) -> None:
    plan = plan_named("single-device")
    linear = {"linear_attention": LinearAttentionEntry(frequency=8, block=256)}
    model = plan.inputs.model.model_copy(update={"entry": plan.inputs.model.entry.model_copy(update=linear)})
    changed = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"model": model})})
    with pytest.raises(InputError, match="has no linear attention") as refusal:
        emit(changed, target, relax=True)
    assert refusal.value.path in ("inputs.model.entry.linear_attention", "inputs.model")


@pytest.mark.parametrize(
    ("target", "name", "changed", "hint"),
    [
        ("megatron", "Megatron-LM", {"schedule": Schedule.ZERO_BUBBLE_H1}, "megatron-core"),
        ("nanotron", "Nanotron", {"zero_stage": 2}, ""),  # nothing is searched for it
    ],
)
def test_a_relaxed_plan_that_does_not_fit_is_infeasible(
    target: str, name: str, changed: dict[str, object], hint: str
) -> None:
    plan = plan_named("dense-3d" if target == "megatron" else "gqa-tensor")
    job = plan.inputs.job.model_copy(update={"memory_headroom": 0.9})
    scarce = plan.model_copy(
        update={
            "layout": plan.layout.model_copy(update=changed),
            "inputs": plan.inputs.model_copy(update={"job": job}),
        }
    )
    with pytest.raises(Infeasible, match=f"no layout that {name} can run instead fits in memory") as infeasible:
        emit(scarce, target, relax=True)
    planned = f", or plan for it: `meshwright plan --target {hint}`" if hint else ""
    assert infeasible.value.hint == f"use more devices{planned}"


def test_what_fits_only_when_recomputed_is_recomputed() -> None:
    """Where tensor ranks don't share 8,192 tokens of 80 layers, what is kept of them doesn't fit."""
    base = plan_named("tensor-fsdp")
    plan = plan_of_layout(base.inputs, replace(base.layout.layout(), recompute=Recompute.NONE))
    emission = emit(plan, "accelerate", relax=True)
    assert emission.relaxed == ("sequence_parallel: True -> False", "recompute: none -> full")
    predicted = emission.plan.predicted
    assert predicted.peak_memory_bytes.nvidia_smi <= predicted.memory_limit_bytes
    assert emission.slower_by > 0.1


def test_an_unknown_launcher_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="no launcher to emit for is called 'megatrn'") as error:
        emit(plan_named("fsdp"), "megatrn")
    assert "megatron" in error.value.hint


def test_a_given_plan_says_so_and_is_read_again(tmp_path: Path) -> None:
    plan = plan_named("uneven")
    assert (plan.search.proof, plan.search.candidates, plan.search.gap) == ("given", 1, 0.0)
    write_plan(plan, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == plan


def test_the_command_writes_the_folder_and_lists_it(tmp_path: Path) -> None:
    write_plan(plan_named("fsdp"), tmp_path / "plan.yaml")
    arguments = ["emit", str(tmp_path / "plan.yaml"), "--target", "megatron", "-o", str(tmp_path / "out"), "--json"]
    answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    document = json.loads(answer.stdout)
    assert document["target"] == "megatron"
    assert sorted(Path(file).name for file in document["files"]) == sorted(
        path.name for path in (tmp_path / "out").iterdir()
    )
    with pytest.raises(InputError, match="the plan is for 8 devices, not for 16"):
        CliRunner().invoke(app, [*arguments, "--force", "--devices", "16"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("planned_for", "target"), [("megatron-core", "megatron"), ("mindspeed", "megatron-0.12"), ("fsdp2", "accelerate")]
)
def test_what_plans_are_made_for_is_a_target_too(planned_for: str, target: str) -> None:
    assert emit_target(planned_for) is EmitTarget(target)
