"""Read the tensors of a TorchScript archive without running its code.

`torch.jit.load` compiles an archive and runs what its code attaches to loading. Here the
archive is only a container: a pickle that names every object's attributes, and one record of plain
memory for each storage.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints.reading import check_tensors, require_regular_file

_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


def is_torchscript(file: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):  # whoever reads it says what is wrong
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive.

    Returns:
        Name -> tensor on the CPU, as `torch.jit.load(file).state_dict()` gives them.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is damaged, or holds anything but modules of plain values; if
            weights are not finite.
    """
    require_regular_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            root = archive.namelist()[0].partition("/")[0]
            pickled = archive.read(f"{root}/data.pkl")
            top = _Unpickler(pickled, lambda name: archive.read(f"{root}/data/{name}")).load()
        tensors = dict(_walk(top, ""))
    except Exception as error:  # the unpickler of a damaged file raises anything
        raise ValueError(
            f"{file.name} is refused: it is damaged or holds more than the values of modules "
            f"({error or type(error).__name__}); download it again"
        ) from error
    check_tensors(tensors, source=file.name)
    return tensors


class _Module:
    """Stands for any class of the archive: it has attributes and no behaviour."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _view(storage: Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """In the place of `torch._utils._rebuild_tensor_v2`; torch refuses what is out of bounds."""
    del rest  # requires_grad and hooks
    return storage.as_strided(size, stride, offset)


def _plain(values: Any, *rest: Any) -> Any:
    """In the place of functions that mark the type of a list or a value."""
    del rest
    return values


class _Unpickler(pickle.Unpickler):
    """Makes modules and tensors of everything; no other class or function is called."""

    def __init__(self, content: bytes, read: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(content))
        self._read = read
        self._storages: dict[tuple[torch.dtype, str], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":
            return _plain
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, record = pid[:3]
        if (dtype, record) not in self._storages:
            content = bytearray(self._read(record))
            whole = len(content) // dtype.itemsize
            self._storages[dtype, record] = (
                torch.frombuffer(content, dtype=dtype, count=whole)
                if whole
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[dtype, record]


def _walk(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _walk(value, f"{prefix}{name}.")
