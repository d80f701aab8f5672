"""The files behind a name: of a model or a cluster that a user wrote, and of the devices and clusters beside it."""

from collections.abc import Iterator
from pathlib import Path

from meshwright.catalog.document import read_document
from meshwright.catalog.lookup import looks_like_path


def files_of_name(name: str) -> Iterator[Path]:
    """Give the files that a model's or a cluster's name is read from; none for names of the catalog.

    The name is one that a command takes: "model.yaml", "cluster.yaml:64", "old.yaml:64+new.yaml".

    Raises InputError where one of them can't be read.
    """
    for part in (name,) if Path(name).exists() else name.split("+"):
        base = part if Path(part).exists() else part.rpartition(":")[0] or part
        if looks_like_path(base):
            yield from _with_those_beside(Path(base))


def _with_those_beside(file: Path) -> Iterator[Path]:
    """Give a file, that of the device it names, and those of its groups' clusters."""
    yield file
    document = read_document(file)
    if not isinstance(document, dict):
        return
    device, groups = document.get("device"), document.get("groups")
    if isinstance(device, str) and looks_like_path(device):
        yield file.parent / device
    for group in groups if isinstance(groups, list) else ():
        cluster = group.get("cluster") if isinstance(group, dict) else None
        if isinstance(cluster, str) and looks_like_path(cluster):
            yield from files_of_name(str(file.parent / cluster))
