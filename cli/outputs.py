"""What a command writes, apart from what it reads."""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from meshwright.catalog.errors import InputError


def require_apart(output: Path | None, files: Iterable[Path | None], *, names: Iterable[str | None] = ()) -> None:
    """Refuse to write over what is read, by whatever path or link, before the work for it is done.

    Args:
        output: the file to write, or the folder to replace; None where nothing is written.
        files: those that are read, None for those that aren't given.
        names: of models and clusters that may be files.

    Raises InputError, also where a file behind a name can't be read.

    """
    from meshwright.catalog.named_files import files_of_name

    if output is None:
        return
    target = os.path.realpath(output)
    behind = chain.from_iterable(files_of_name(name) for name in names if name is not None)
    for file in chain((each for each in files if each is not None), behind):
        if not os.path.isfile(file):
            continue
        if os.path.exists(target) and os.path.samefile(file, target):
            raise InputError(
                "is one of the files that are read, so nothing is written over it",
                file=str(output),
                hint="name another one",
            )
        if Path(os.path.realpath(file)).is_relative_to(target):
            raise InputError(
                f"holds {file}, which is read, so the folder isn't replaced", file=str(output), hint="name another one"
            )
