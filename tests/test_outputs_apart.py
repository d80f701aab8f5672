"""No command writes over what it reads, however that is spelled: it is refused first, and all stays as it was."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run

JOB = ("--global-batch", "64", "--sequence-length", "4096")
ON = ("--device", "a100-sxm-80gb")
CLUSTER = ("--cluster", "dgx-h100:8")
# What reads READ and writes OUT; the files hold nothing that the work could begin with.
WRITERS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy", "READ", "--plot", "OUT"),
    "accuracy --overlay": ("accuracy", "other.yaml", "--overlay", "READ", "--plot", "OUT"),
    "calibrate": ("calibrate", "READ", *ON, "-o", "OUT"),
    "calibrate --overlay": ("calibrate", "other.yaml", *ON, "--overlay", "READ", "-o", "OUT"),
    "calibrate --case": ("calibrate", "other.yaml", *ON, "--case", "READ", "-o", "OUT"),
    "calibrate --cluster": ("calibrate", "other.yaml", *ON, "--cluster", "READ", "-o", "OUT"),
    "plan MODEL": ("plan", "READ", "dgx-h100:8", *JOB, "-o", "OUT"),
    "plan CLUSTER": ("plan", "llama-3.1-8b", "READ:8", *JOB, "-o", "OUT"),
    "plan A+B": ("plan", "llama-3.1-8b", "dgx-h100:8+READ:8", *JOB, "-o", "OUT"),
    "plan --routing": ("plan", "mixtral-8x7b", "dgx-h100:8", *JOB, "--routing", "READ", "-o", "OUT"),
    "plan --overlay": ("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "--overlay", "READ", "-o", "OUT"),
    "import": ("import", "READ", "--target", "megatron", *CLUSTER, "-o", "OUT"),
    "import --model": ("import", "other.yaml", "--target", "megatron", *CLUSTER, "--model", "READ", "-o", "OUT"),
    "import --cluster": ("import", "other.yaml", "--target", "megatron", "--cluster", "READ", "-o", "OUT"),
    "import --overlay": ("import", "other.yaml", "--target", "megatron", *CLUSTER, "--overlay", "READ", "-o", "OUT"),
    "offload --plan": ("offload", "--plan", "READ", "-o", "OUT"),
    "offload --layout": ("offload", "llama-3.1-8b", "dgx-h100:8", *JOB, "--layout", "READ", "-o", "OUT"),
    "offload MODEL": ("offload", "READ", "--plan", "other.yaml", "-o", "OUT"),
    "offload --calibrate": ("offload", "--plan", "other.yaml", "--calibrate", "READ", "-o", "OUT"),
    "offload --overlay": ("offload", "--plan", "other.yaml", "--overlay", "READ", "-o", "OUT"),
    "replan": ("replan", "READ", "--lose", "node:1", "-o", "OUT"),
    "replan --moves": ("replan", "READ", "--lose", "node:1", "--moves", "OUT"),
    "replan --overlay": ("replan", "other.yaml", "--lose", "node:1", "--overlay", "READ", "-o", "OUT"),
    "reshard OLD": ("reshard", "READ", "checkpoint", "-o", "OUT"),
    "reshard NEW": ("reshard", "other.yaml", "READ", "-o", "OUT"),
    "reshard --overlay": ("reshard", "other.yaml", "checkpoint", "--overlay", "READ", "-o", "OUT"),
    "scatter LENGTHS": ("scatter", "READ", "llama-3.1-8b", "dgx-h100:8", "-o", "OUT"),
    "scatter MODEL": ("scatter", "other.yaml", "READ", "dgx-h100:8", "-o", "OUT"),
    "scatter CLUSTER": ("scatter", "other.yaml", "llama-3.1-8b", "READ", "-o", "OUT"),
    "scatter --calibrate": ("scatter", "other.yaml", "llama-3.1-8b", "dgx-h100:8", "--calibrate", "READ", "-o", "OUT"),
    "scatter --overlay": ("scatter", "other.yaml", "llama-3.1-8b", "dgx-h100:8", "--overlay", "READ", "-o", "OUT"),
}
# What reads a file of the folder "made", and would replace that as a whole.
REPLACERS: dict[str, tuple[str, ...]] = {
    "emit": ("emit", "made/READ", "--target", "megatron", "-o", "made", "--force"),
    "emit a placement": ("emit", "made/READ", "--target", "vllm", "-o", "made", "--force"),
    "experts": ("experts", "made/READ", "--devices", "8", "-o", "made", "--force"),
    "experts --previous": (
        *("experts", "other.yaml", "--devices", "8"),
        *("--previous", "made/READ", "-o", "made", "--force"),
    ),
    "experts MODEL": ("experts", "other.yaml", "--devices", "8", "--model", "made/READ", "-o", "made", "--force"),
}


def hard_link(read: Path, folder: Path) -> str:
    (folder / "linked.svg").hardlink_to(read)
    return "linked.svg"


def link(read: Path, folder: Path) -> str:
    (folder / "link.svg").symlink_to(read.name)
    return "link.svg"


def linked_folder(read: Path, folder: Path) -> str:
    (folder / "here").symlink_to(".")
    return f"here/{read.name}"


SPELLINGS: dict[str, Callable[[Path, Path], str]] = {
    "as it is": lambda read, _: read.name,
    "absolute": lambda read, _: str(read),
    "dotted": lambda read, folder: f"./../{folder.name}/./{read.name}",
    "a link": link,
    "a hard link": hard_link,
    "in a linked folder": linked_folder,
}


@pytest.fixture
def read_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make what is read, beside another file, in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("a: 2\n")
    file = tmp_path / "read.yaml"
    file.write_text("a: 1\n")
    return file


def require_refused(outcome: tuple[int, str, str], told: str) -> None:
    code, out, err = outcome
    assert (code, out) == (2, ""), err
    assert err.count("error:") == 1
    assert told in err


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_that_is_read_is_not_written_over(run: Run, read_file: Path, command: str) -> None:
    words = [word.replace("READ", "./read.yaml").replace("OUT", read_file.name) for word in WRITERS[command]]
    if "--plot" in words:
        words[-1] = SPELLINGS["a link"](read_file, read_file.parent)
    require_refused(run(*words), f"{words[-1]}: is one of the files that are read, so nothing is written over it")
    assert read_file.read_text() == "a: 1\n"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("command", ["accuracy", "calibrate", "plan CLUSTER", "replan --moves"])
def test_no_spelling_leads_to_it(run: Run, read_file: Path, command: str, spelling: str) -> None:
    drawing = read_file.rename(read_file.with_suffix(".svg"))
    spelled = SPELLINGS[spelling](drawing, drawing.parent)
    words = [word.replace("READ", f"./{drawing.name}").replace("OUT", spelled) for word in WRITERS[command]]
    require_refused(run(*words), f"{Path(spelled)}: is one of the files that are read")
    assert drawing.read_text() == "a: 1\n"


@pytest.mark.parametrize("command", REPLACERS)
def test_a_folder_that_holds_what_is_read_is_not_replaced(run: Run, read_file: Path, command: str) -> None:
    folder = read_file.parent / "made"
    folder.mkdir()
    held = Path(shutil.move(read_file, folder))
    words = [word.replace("READ", held.name) for word in REPLACERS[command]]
    require_refused(run(*words), "made: holds made/read.yaml, which is read, so the folder isn't replaced")
    assert held.read_text() == "a: 1\n"


@pytest.mark.parametrize("beside", ["device", "group", "device of a group"])
def test_what_lies_beside_a_cluster_is_not_written_over(run: Run, read_file: Path, beside: str) -> None:
    """A cluster's file may name its device's file, and a mixed one those of its clusters."""
    folder = read_file.parent / "clusters"
    folder.mkdir()
    named = Path(shutil.move(read_file, folder / "new.yaml"))
    if beside == "device":
        (folder / "own.yaml").write_text("device: ./new.yaml\n")
    else:
        (folder / "own.yaml").write_text(f"groups: [cluster: './{'box' if beside != 'group' else 'new'}.yaml:8']\n")
        (folder / "box.yaml").write_text("device: new.yaml\n")
    outcome = run("plan", "llama-3.1-8b", "clusters/own.yaml", *JOB, "-o", "clusters/new.yaml")
    require_refused(outcome, "clusters/new.yaml: is one of the files that are read")
    assert named.read_text() == "a: 1\n"


def test_names_of_the_catalog_are_no_files(run: Run, read_file: Path) -> None:
    code, _, err = run("plan", "llama-3.1-8b", "dgx-h100:8", *JOB, "-o", "dgx-h100:8")
    assert code == 0, err
    assert (read_file.parent / "dgx-h100:8").is_file()
