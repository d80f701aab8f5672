"""The wheel holds what the checkout holds: every package, and every file of the catalog."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("catalog", "cli", "costmodels", "hardware", "planner", "runtime")


def shipped_folders() -> set[str]:
    """Every folder below the top ones that holds code or data."""
    found = {
        path.parent.relative_to(ROOT)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".yaml"}
    }
    return {".".join(("meshwright", *folder.parts)) for folder in found}


def test_every_folder_is_listed_as_a_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == shipped_folders()


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files of a wheel built from a clean copy of what git tracks."""
    clean = tmp_path_factory.mktemp("clean")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            (clean / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=clean, capture_output=True, text=True, check=True)
    (wheel,) = clean.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_code_and_the_data(wheel_names: set[str]) -> None:
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {f"meshwright/{name}" for name in tracked.splitlines() if (ROOT / name).is_file()}
    assert wanted - wheel_names == set()


def test_the_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    others = {name for name in wheel_names if not name.startswith("meshwright/") and ".dist-info/" not in name}
    assert others == set()
    assert "meshwright/__init__.py" not in wheel_names
