"""Arrays of numbers in `.npy` and `.npz` files that may be hostile: nothing in them is ever run.

What a header promises is held against the bytes that are there before anything is made of it.
"""

import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from meshwright.catalog.errors import InputError

MAXIMUM_BYTES = 512 * 2**20
MOST_DIMENSIONS = 4

Array = NDArray[Any]


def require_size(path: Path) -> None:
    """Raise InputError where there is no regular file, or one too large to be read."""
    file = str(path)
    if path.is_dir():
        raise InputError("is a directory, not a file", file=file)
    if not path.exists():
        raise InputError("no such file", file=file)
    if not path.is_file():
        raise InputError("is not a regular file", file=file)
    size = path.stat().st_size
    if size > MAXIMUM_BYTES:
        raise InputError(
            f"is {size / 2**20:.0f} MiB; at most {MAXIMUM_BYTES // 2**20} MiB are read",
            file=file,
            hint="add the steps up, or count the trace, before",
        )


def read_npy(path: Path) -> Array:
    """Give the array of a `.npy` file. Raises InputError."""
    require_size(path)
    try:
        with path.open("rb") as stream:
            return _array(stream, path.stat().st_size, file=str(path), name="")
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", file=str(path)) from None


def read_npz(path: Path) -> dict[str, Array]:
    """Give the arrays of a `.npz` file by name. Raises InputError."""
    require_size(path)
    file = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            whole = sum(member.file_size for member in members)
            if whole > MAXIMUM_BYTES:
                raise InputError(
                    f"unpacks to {whole / 2**20:.0f} MiB; at most {MAXIMUM_BYTES // 2**20} MiB are read", file=file
                )
            return {
                member.filename.removesuffix(".npy"): _array(
                    BytesIO(archive.read(member)), member.file_size, file=file, name=member.filename
                )
                for member in members
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"is not a whole .npz file: {error}", file=file) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", file=file) from None


def _array(stream: IO[bytes], size: int, *, file: str, name: str) -> Array:
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, kind = read_header(stream)
    except (ValueError, EOFError, KeyError, SyntaxError):
        raise InputError("is not a .npy array", file=file, path=name) from None
    if kind.hasobject:
        raise InputError(
            "holds Python objects, which are never loaded", file=file, path=name, hint="save an array of numbers"
        )
    if kind.kind not in "uif" or len(shape) > MOST_DIMENSIONS:
        raise InputError(f"must be numbers in at most {MOST_DIMENSIONS} dimensions", file=file, path=name)
    count = 1
    for length in shape:
        count *= int(length)
    left = size - stream.tell()
    if count * kind.itemsize != left:
        raise InputError(
            f"has {left} bytes where its shape {list(shape)} takes {count * kind.itemsize}", file=file, path=name
        )
    values: Array = np.frombuffer(stream.read(left), kind)
    return values.reshape(shape, order="F" if by_column else "C")
