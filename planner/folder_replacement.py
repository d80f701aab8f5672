"""Folders of files, written whole or not at all."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from meshwright.catalog.errors import InputError

SCRIPT_MODE = 0o755


def write_folder(files: Mapping[str, str | bytes], folder: str | Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write files, by name, into a folder of their own, and give their paths.

    With `force` the folder may be there; it is then replaced as a whole.

    Raises InputError where the folder is there already, or can't be written; nothing is left behind.
    """
    target = Path(folder)
    require_free(target, force=force)
    draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        _fill(draft, files)
        _put(draft, target)
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", file=str(folder)) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return tuple(target / name for name in files)


def require_free(folder: Path, *, force: bool) -> None:
    """Raise InputError where a folder can't be made, or is there and may not be replaced."""
    if not folder.name:
        raise InputError("is no folder of its own to write to", file=str(folder), hint="name one that isn't there yet")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"there is no folder {folder.parent}", file=str(folder), hint="make the folder first")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("is there, and isn't a folder, so nothing is written over it", file=str(folder))
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InputError(
            "is the folder that you are in, or holds it, so it isn't replaced",
            file=str(folder),
            hint="name one that isn't there yet",
        )
    if not force:
        raise InputError("is there already", file=str(folder), hint="--force replaces the whole folder")


def _fill(draft: Path, files: Mapping[str, str | bytes]) -> None:
    draft.mkdir()
    for name, text in files.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        if path.suffix in (".sh", ".sbatch"):
            path.chmod(SCRIPT_MODE)


def _put(draft: Path, target: Path) -> None:
    """Move the draft to where it belongs; what was there goes away behind it."""
    if not target.exists():
        draft.rename(target)
        return
    old = target.with_name(f".{target.name}.{uuid4().hex}.old")
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
