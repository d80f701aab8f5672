"""Writing files: whole, or not at all."""

import os
from pathlib import Path
from uuid import uuid4

from meshwright.catalog.errors import InputError


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file, links followed, in the place of the one that may be there.

    Raises InputError where the folder is missing or can't be written to, or where the path leads to anything but a
    regular file; an existing file is then as it was.
    """
    target = replaceable_file(path)
    try:
        _replace(target, content)
    except OSError as error:
        raise _refusal(error, path) from None


def replaceable_file(path: str | Path) -> Path:
    """Give the file to replace, links followed; anything else there, such as a device, is never replaced.

    Raises InputError as `replace_file` does, so that what takes long to make can be refused before it is made.
    """
    try:
        return _target(path)
    except OSError as error:
        raise _refusal(error, path) from None


def _refusal(error: OSError, path: str | Path) -> InputError:
    return InputError(f"can't be written: {error.strerror or error}", file=str(path))


def _target(path: str | Path) -> Path:
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError("is a link that leads back to itself, so nothing is written over it", file=str(path))
    if target.exists() and not target.is_file():
        raise InputError("is not a regular file, so nothing is written over it", file=str(path))
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}", file=str(path), hint="make the folder first")
    return target


def _replace(target: Path, content: bytes) -> None:
    """Write beside the target and rename over it. Whatever goes wrong before that leaves no file behind."""
    draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
