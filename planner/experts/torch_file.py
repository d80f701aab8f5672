"""Tensors of a file that `torch.save` wrote, without PyTorch and without running anything in it.

Such a file is a zip of `data.pkl`, which says how tensors are made of storages, and one member a storage. Of what
pickles can name, only tensors, storages and plain containers are known here; anything else is an error.
(docs.pytorch.org/docs/stable/notes/serialization.html)
"""

import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.planner.experts.array_file import MAXIMUM_BYTES, Array, require_size

KINDS = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
}


def read_torch(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Give what a file of `torch.save` holds, tensors as arrays. Raises InputError."""
    require_size(path)
    file = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAXIMUM_BYTES:
                raise InputError(f"unpacks to more than {MAXIMUM_BYTES // 2**20} MiB", file=file)
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if inside is None:
                raise InputError("is not a file of torch.save", file=file)
            return _Reader(archive, inside.removesuffix("data.pkl"), archive.read(inside)).load()
    except pickle.UnpicklingError as error:
        raise InputError(f"is not only tensors and plain values: {error}", file=file) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", file=file) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError, IndexError) as error:
        raise InputError(f"is not a whole file of torch.save: {error}", file=file) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"is not a file of torch.save that can be read: {error}", file=file) from None


class _Reader(pickle.Unpickler):
    """An unpickler for which the only names are those of tensors."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, content: bytes) -> None:
        super().__init__(BytesIO(content))
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - what its name stands for
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module in ("torch", "torch.storage") and name in KINDS:
            return KINDS[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:200])

    def persistent_load(self, pid: tuple[str, np.dtype[Any], str, str, int]) -> Array:
        storage, kind, key, _, count = pid
        if storage != "storage" or not isinstance(kind, np.dtype):
            raise pickle.UnpicklingError("it has a storage of another kind")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), kind, count)


def _tensor(storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Array:
    """Give the tensor that strides over a storage, as torch._utils does. Raises ValueError beyond its end."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if any(length == 0 for length in size):
        return np.zeros(size, storage.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise ValueError("a tensor leaves its storage")
    view: Array = np.lib.stride_tricks.as_strided(
        storage[offset:], size, tuple(step * storage.itemsize for step in stride), writeable=False
    )
    return view
