"""Arguments that several commands take."""

from pathlib import Path

from meshwright.catalog.errors import InputError


def file_path(name: str) -> Path:
    """Give the path of a file that a user named. Raises InputError for an empty name, which would be the folder."""
    if not name:
        raise InputError("the name of the file is empty")
    return Path(name)
