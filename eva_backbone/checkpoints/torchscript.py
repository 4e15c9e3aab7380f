"""Read the tensors of a TorchScript archive without running its code.

`torch.jit.load` compiles an archive and runs what its code attaches to loading. Here the
archive is only a container: a pickle that names every object's attributes, and one record of plain
memory for each storage.
"""

import io
import itertools
import math
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eva_backbone.checkpoints.reading import check_tensors, require_regular_file

_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in (
        *(("Half", torch.float16), ("BFloat16", torch.bfloat16), ("Float", torch.float32)),
        *(("Double", torch.float64), ("Byte", torch.uint8), ("Char", torch.int8)),
        *(("Short", torch.int16), ("Int", torch.int32), ("Long", torch.int64)),
        ("Bool", torch.bool),
    )
}
# What zipfile and torch raise for records that contradict each other.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError),
    *(RuntimeError, OverflowError, TypeError),
)
_DEEPEST, _MOST = 100, 100_000  # modules in modules, modules of all


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
        ValueError: If it is damaged, compressed, or holds anything but modules of plain values; if
            weights are not finite.
    """
    require_regular_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            tensors = _tensors(archive, file)
    except _DAMAGE as error:
        raise ValueError(f"{file.name} is damaged ({error}); download it again") from error
    check_tensors(tensors, source=file.name)
    return tensors


class _Storage(NamedTuple):
    record: str
    dtype: torch.dtype


class _View(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Stands for any class of the archive: it has attributes and no behaviour."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _view(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _View:
    """In the place of `torch._utils._rebuild_tensor_v2`."""
    del rest  # requires_grad and hooks
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor of no storage")
    return _View(storage, offset, tuple(size), tuple(stride))


def _plain(values: Any, *rest: Any) -> Any:
    """In the place of functions that mark the type of a list or a value."""
    del rest
    return values


class _Unpickler(pickle.Unpickler):
    """Makes `_Module` and `_View` of everything; no other class or function is called."""

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

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, record = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("an unknown kind of storage")
        return _Storage(str(record), dtype)


def _check_numbering(content: bytes) -> None:
    """Refuse large numbers of objects: the unpickler fills a table up to the largest."""
    for code, number, _ in pickletools.genops(content):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > len(content):
            raise pickle.UnpicklingError(f"it numbers an object {number}, more than it can have")


def _tensors(archive: zipfile.ZipFile, file: Path) -> dict[str, Tensor]:
    for record in archive.infolist():
        is_read = record.filename.endswith("/data.pkl") or "/data/" in record.filename
        if is_read and record.compress_type != zipfile.ZIP_STORED:  # its code may be compressed
            raise ValueError(
                f"{file.name} is refused: its record {record.filename} is compressed, and "
                "TorchScript compresses no values; download it again"
            )
    root = archive.namelist()[0].partition("/")[0]
    try:
        pickled = archive.read(f"{root}/data.pkl")
        _check_numbering(pickled)
        top = _Unpickler(io.BytesIO(pickled)).load()
    except (zipfile.BadZipFile, OSError):
        raise
    except Exception as error:  # the unpickler of a damaged file raises anything
        raise ValueError(
            f"{file.name} is refused: it is damaged or holds more than the values of modules "
            f"({str(error) or type(error).__name__})"
        ) from error
    if not isinstance(top, _Module):
        raise ValueError(f"{file.name} is refused: it is not the archive of a module")
    storages: dict[_Storage, Tensor] = {}
    tensors = {}
    for name, view in _walk(top, "", 0, itertools.count()):
        if view.storage not in storages:
            content = bytearray(archive.read(f"{root}/data/{view.storage.record}"))
            whole = len(content) // view.storage.dtype.itemsize
            storages[view.storage] = (
                torch.frombuffer(content, dtype=view.storage.dtype, count=whole)
                if whole
                else torch.empty(0, dtype=view.storage.dtype)
            )
        memory = storages[view.storage]
        pairs = zip(view.size, view.stride, strict=False)
        last = view.offset + sum((size - 1) * stride for size, stride in pairs)
        empty = 0 in view.size
        fits = empty or (last < len(memory) and math.prod(view.size) <= len(memory))
        if len(view.size) != len(view.stride) or not fits:
            raise ValueError(
                f"{file.name} is damaged: {name} {view.size} is not in its record of "
                f"{len(memory):,} numbers; download it again"
            )
        tensors[name] = memory.as_strided(view.size, view.stride, 0 if empty else view.offset)
    return tensors


def _walk(
    module: _Module, prefix: str, depth: int, met: Iterator[int]
) -> Iterator[tuple[str, _View]]:
    if depth > _DEEPEST or next(met) > _MOST:
        raise ValueError(f"the archive holds too many modules in each other: {prefix[:60]}...")
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, _View):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _walk(value, f"{prefix}{name}.", depth + 1, met)
