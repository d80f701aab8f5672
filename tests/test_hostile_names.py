"""Names of a plan that would be commands if they weren't quoted, through every script of every target, really run."""

import ast
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from emitted_plans import PLANS, plan_named

from meshwright.planner import Plan, emit
from meshwright.planner.emission import Emission, EmitTarget, write_emission
from meshwright.planner.emission.emitters import EMITTERS

HOSTILE = (
    "$(rm -rf ~)",
    "`reboot`",
    "x; reboot",
    "x' ; reboot; '",
    'x" ; reboot; "',
    "x\nreboot",
    "x\r\nreboot\x85reboot\u2028reboot",
    "${x:-$(reboot)} || reboot & \\",
    "--relax {{reboot}} %s * ?",
)
STARTERS = ("torchrun", "accelerate", "deepspeed")
FAKES = (*STARTERS, "reboot", "srun", "scontrol")
SEVERAL_NODES = "hsdp"


def named(plan: Plan, name: str) -> Plan:
    """Give everything in a plan that has a name of the user's that name."""
    inputs = plan.inputs
    model, cluster, device = (
        part.model_copy(update={"entry": part.entry.model_copy(update={"name": name})})
        for part in (inputs.model, inputs.cluster, inputs.device)
    )
    renamed = inputs.model_copy(update={"model": model, "cluster": cluster, "device": device})
    return plan.model_copy(update={"inputs": renamed})


class Machine:
    """A home to be kept, and commands that only note that they were called, with their arguments and environment.

    It has more nodes than a pipe holds the names of.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.commands = folder / "home", folder / "bin"
        for path in (self.home, self.commands):
            path.mkdir()
        (self.home / "keep").touch()
        for command in FAKES:
            self._fake(command, 'printf "%s\\n" "$@"' if command != "scontrol" else "seq -f node-%06.0f 100000")
        # Slurm runs what srun is given.
        self._fake("srun", '"$@"', note=False)

    def _fake(self, command: str, body: str, *, note: bool = True) -> None:
        path = self.commands / command
        called = self.folder / f"{command}.called"
        noted = f'{{ printf "%s\\n" "$@"; env; }} > "{called}"\n' if note else ""
        path.write_text(f"#!/bin/sh\n{noted}{body}\n")
        path.chmod(0o755)

    def run(self, *words: str | Path, cwd: Path, **variables: str) -> None:
        """Run a command; raises where it fails."""
        environment = {"HOME": str(self.home), "PATH": f"{self.commands}:/usr/bin:/bin", **variables}
        subprocess.run(words, env=environment, cwd=cwd, check=True, capture_output=True)

    def require_unharmed(self) -> None:
        """Hold that a launcher was started, and nothing else that names could have been."""
        assert (self.home / "keep").exists()
        assert not (self.folder / "reboot.called").exists()
        started = [self.folder / f"{command}.called" for command in STARTERS]
        assert any(path.exists() for path in started)

    def told(self) -> str:
        """Give what the launcher was called with."""
        return "".join(path.read_text() for path in self.folder.glob("*.called"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def emission(target: EmitTarget, name: str) -> Emission:
    return emit(named(plan_named("single-device"), name), target)


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_node_script_starts_the_launcher_and_nothing_else(target: EmitTarget, name: str, machine: Machine) -> None:
    folder = machine.folder / "out"
    write_emission(emission(target, name), folder)
    machine.run("bash", "-n", folder / "run.sh", cwd=machine.folder)
    machine.run("bash", folder / "run.sh", "--more", cwd=machine.folder)
    machine.require_unharmed()
    assert "--more" in machine.told()


@pytest.mark.parametrize("target", [EmitTarget.DEEPSPEED, EmitTarget.ACCELERATE])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isprintable()])
def test_a_name_that_a_script_is_told_arrives_as_it_is(target: EmitTarget, name: str, machine: Machine) -> None:
    folder = machine.folder / "out"
    write_emission(emission(target, name), folder)
    machine.run("bash", folder / "run.sh", cwd=machine.folder)
    assert f"PLAN_MODEL={name}\n" in machine.told()


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_schedulers_scripts_start_the_launcher_and_nothing_else(
    target: EmitTarget, name: str, machine: Machine
) -> None:
    plan = emit(plan_named(SEVERAL_NODES), target, relax=True).plan
    folder = machine.folder / "out"
    write_emission(emit(named(plan, name), target), folder)
    machine.run("bash", "-n", folder / "job.sbatch", cwd=folder)
    slurm = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_NODEID": "1"}
    machine.run("bash", folder / "job.sbatch", cwd=folder, **slurm)
    machine.require_unharmed()
    assert "MASTER_ADDR=node-000001\n" in machine.told()
    assert "NODE_RANK=1\n" in machine.told()


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_manifests_hold_names_that_schedulers_take(target: EmitTarget, name: str) -> None:
    files = emission(target, name).files
    job = yaml.safe_load(files["pytorchjob.yaml"])
    assert set(job["metadata"]["name"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    assert container["command"][:2] == ["bash", "-c"]
    assert container["command"][2] == 'NODE_RANK="$RANK" exec bash /plan/run.sh'
    options = [line for line in files["job.sbatch"].splitlines() if line.startswith("#SBATCH")]
    assert not any("reboot" in line and "--job-name=train-" not in line for line in options)


def test_what_skypilot_runs_is_the_node_script() -> None:
    plan = plan_named("single-device")
    model = plan.inputs.model.model_copy(
        update={"entry": plan.inputs.model.entry.model_copy(update={"name": HOSTILE[0]})}
    )
    files = emit(plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"model": model})}), "megatron").files
    task = yaml.safe_load(files["skypilot.yaml"])
    assert task["name"] == "train-rm-rf"
    assert task["run"].splitlines()[-1] == "exec bash run.sh"
    assert "rm -rf" not in task["run"]


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("name", [*HOSTILE, '"""', "'''\nimport os", "\\"])
def test_modules_are_python_and_name_it_in_comments_only(target: EmitTarget, name: str) -> None:
    for file, text in emission(target, name).files.items():
        if file.endswith(".py"):
            tree = ast.parse(text)
            assert not any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))
            modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert modules <= {"sys"}


@pytest.mark.parametrize("target", EMITTERS)
def test_the_plan_beside_them_has_the_name_as_it_is(target: EmitTarget) -> None:
    for name in HOSTILE:
        assert yaml.safe_load(emission(target, name).files["plan.yaml"])["inputs"]["model"]["entry"]["name"] == name


def test_every_plan_and_target_gives_scripts_that_bash_reads(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for target in EMITTERS:
        for plan in PLANS:
            if any(EMITTERS[target].obstacles(plan_named(plan))):
                continue
            for file, text in emit(named(plan_named(plan), HOSTILE[3]), target).files.items():
                if file.endswith((".sh", ".sbatch")):
                    (scripts / f"{target}-{plan}-{file}").write_text(text)
    for script in scripts.iterdir():
        subprocess.run(["bash", "-n", script], check=True, env={"PATH": os.environ["PATH"]})
