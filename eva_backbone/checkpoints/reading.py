"""Reading files of weights that others wrote: nothing in them runs, damage is one sentence.

`torch.load(weights_only=True)` runs no code, but it believes a file's sizes, checks no checksum and
waits for ever on a pipe. What is refused here: anything but a regular file, a torch archive that is
cut, has a record whose CRC-32 differs, has compressed records (`torch.save` writes none: a few MB
could ask for all memory), or names anything that is not plain data.
"""

import argparse
import contextlib
import copy
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from eva_backbone.checkpoints._key_maps import CONTAINERS, NOT_WEIGHTS, WEIGHTS
from eva_backbone.checkpoints.adapters import find_base, merge, read_adapter_config
from eva_backbone.checkpoints.families import to_eva_names
from eva_backbone.checkpoints.registry import SHARDS, resolve_source
from eva_backbone.checkpoints.run_folders import ADAPTER, ADAPTER_WEIGHTS, LORA
from eva_backbone.checkpoints.verification import require_regular_file as require_regular_file

Allowed = Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_AGAIN = "get it from its publisher again"
_MOST_HEADER = 16 * 2**20  # bytes of safetensors': 150,000 tensors; 700,000 took 40 s
_ARCHIVE = b"PK\x03\x04"  # first bytes
_LOOKS_LIKE = {  # first bytes -> what it is
    b"version https://git-lfs": "it is a Git LFS pointer; run `git lfs pull`",
    b"<": "it is a web page or XML; download the file itself",
    b"{": "it is JSON text",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
}
# What mmengine packs beside the weights: logged numbers, in arrays of numpy.
_BESIDE_WEIGHTS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.dtypes.{name}DType" for name in ("Float32", "Float64", "Int64")),
    *(
        f"numpy.{package}.multiarray.{name}"  # before numpy 2, and since
        for package in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
)


def read_torch_file(
    path: str | os.PathLike[str], *, allowed: Allowed = (), mapped: bool = False
) -> Any:
    """Read anything that `torch.save` wrote, such as the checkpoint of a run.

    Args:
        path: Path of a regular file.
        allowed: Further classes and functions that the content may name, as in
            `torch.serialization.safe_globals`.
        mapped: Leave tensors in the file until they are used. The file must then stay unchanged
            as long as they live; replacing it by renaming is allowed.

    Returns:
        The content, with tensors on the CPU.

    Raises:
        OSError: If there is no file, or it may not be read.
        ValueError: If it is not a regular file, damaged, too large for the memory, or holds
            anything but plain data.
    """
    path = require_regular_file(path)
    with path.open("rb") as file:
        archive = file.read(4) == _ARCHIVE  # what torch looks at, too
        with _refusing(path.name):
            fault = _fault_of_file(file)
            if fault:
                raise pickle.UnpicklingError(fault)
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
                warnings.simplefilter("ignore")  # on odd protocols; what matters becomes an error
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
            # mapped first: torch reads what the pickle claims, not what the archive has
            return copy.deepcopy(content) if archive and not mapped else content


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file: name -> tensor on the CPU.

    Raises:
        OSError: If there is no file, or it may not be read.
        ValueError: If it is not a regular file, or damaged.
    """
    path = require_regular_file(path)
    with path.open("rb") as file:  # what may not be read, the library calls damaged
        header = int.from_bytes(file.read(8), "little")
    with _refusing(path.name):
        if header > _MOST_HEADER:
            raise SafetensorError(f"a header of {header:,} bytes, over {_MOST_HEADER:,}")
        return load_file(path)


def read_shards(index: Path) -> dict[str, Tensor]:
    """Read what transformers has split into several safetensors files, one after the other.

    Tensors lie in the files until they are used.

    Args:
        index: `*.safetensors.index.json`, beside the files.

    Raises:
        OSError: If one of the files is not there, or may not be read.
        ValueError: If one is damaged, or its tensors are not those that the index gives to it.
    """
    content = require_regular_file(index).read_bytes()
    with _refusing(index.name):
        listed = json.loads(content)["weight_map"]
        files = sorted({*map(Path, listed.values())})  # a number is a TypeError
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.name != str(file):
            raise ValueError(f"{index.name} names {str(file)!r}, which is no file beside it")
        own = read_safetensors(index.with_name(file.name))
        names = {name for name in listed if listed[name] == file.name}
        different = [*sorted(own.keys() - names), *sorted(names - own.keys())]
        if different:
            raise ValueError(
                f"{index.name} and {file}: {list_names(different, 3)} in only one of both; {_AGAIN}"
            )
        tensors |= own
    return tensors


class _Ignored:
    """Takes the place of what lies beside the weights, and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        del state


def _attribute_of_ignored(owner: object, name: str) -> type:
    """Replace `getattr`, by which a buffer of mmengine names its own statistics."""
    if owner is not _Ignored:
        raise pickle.UnpicklingError(f"GLOBAL getattr of {owner}, {name}")
    return _Ignored


def read_weights(path: Path, *, above: tuple[Path, ...] = ()) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file without running any code in it.

    Args:
        path: `.safetensors`, an index of several (`.safetensors.index.json`), or anything that
            `torch.save` wrote. Adapters are merged with their base, which is found and verified.
        above: Adapters whose base this is.

    Returns:
        Name -> tensor on the CPU, out of the container that the file wraps them in.

    Raises:
        ValueError: If the file is damaged, holds code or no weights, or weights that are not
            finite floating-point numbers.
    """
    content: Any
    if path.suffix == ".safetensors":
        content = read_safetensors(path)
    elif path.name.endswith(SHARDS):
        content = read_shards(path)
    else:  # the official training scripts pack their arguments, a Namespace, beside the weights
        ignored: Allowed = [(_Ignored, name) for name in _BESIDE_WEIGHTS]
        attribute = (_attribute_of_ignored, "builtins.getattr")
        allowed = [argparse.Namespace, attribute, *ignored]
        content = read_torch_file(path, allowed=allowed, mapped=True)
        require_whole(content, path)
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    entries = dict(content) if isinstance(content, Mapping) else {}
    tensors = {n: v for n, v in entries.items() if isinstance(n, str) and isinstance(v, Tensor)}
    if not tensors or len(tensors) < len(entries):
        odd = [str(name) for name in entries if name not in tensors] or [type(content).__name__]
        raise ValueError(
            f"{path.name} holds no plain state dict: {list_names(odd)} are not named tensors; "
            f"known containers are {', '.join(CONTAINERS)}"
        )
    check_tensors(tensors, source=path.name)
    if path.name == ADAPTER_WEIGHTS:
        return _merged(tensors, path, above)
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def require_whole(content: object, path: Path) -> None:
    """Refuse a checkpoint of a run with adapters, which lacks what is frozen."""
    if isinstance(content, Mapping) and LORA in content:
        raise ValueError(
            f"{path} is what a run with adapters continues from, and lacks the weights of their "
            f"base: take the folder of the run, or of its adapter, {(path.parent / ADAPTER).parent}"
        )


def _merged(
    tensors: Mapping[str, Tensor], path: Path, above: tuple[Path, ...]
) -> dict[str, Tensor]:
    config = read_adapter_config(path.parent)
    base = find_base(config, path.parent)
    above = (*above, path.resolve())
    if base.resolve() in above:
        raise ValueError(f"{path} has {base} as its base, which is an adapter of it")
    return merge(config, to_eva_names(read_weights(base, above=above)), tensors, path)


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, for whatever builds or fills a model.

    Attributes:
        name: Name of the file, for messages.
        tensors: Name -> tensor on the CPU.
        frames: Frames of the clips that the file's model was made for, where its shapes do not show
            them; those of the official video files do.
        image_size: Side of the images that a training noted, which positions may not show.
        renamed: Whether a ViT of another family has the names of this toolkit, see `rename`.
    """

    name: str
    tensors: Mapping[str, Tensor]
    frames: int | None = None
    image_size: int | None = None
    renamed: bool = False

    @classmethod
    def read(cls, source: "str | os.PathLike[str] | Weights") -> "Weights":
        """Read a path or a known name under this toolkit's names."""
        return (source if isinstance(source, Weights) else cls.read_as_stored(source)).rename()

    @classmethod
    def read_as_stored(cls, source: str | os.PathLike[str]) -> "Weights":
        """Read a path or a known name, see `resolve_source` and `read_weights`."""
        path = resolve_source(source)
        return cls(path.name, read_weights(path), **noted_sizes(path))

    def rename(self) -> "Weights":
        """Give the tensors the names and forms of this toolkit, once; see `to_eva_names`."""
        if self.renamed:
            return self
        return replace(self, tensors=to_eva_names(self.tensors), renamed=True)


def noted_sizes(path: Path) -> dict[str, Any]:
    """Read `frames` and `image_size`, as far as a training notes them in its weights."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as content:
            noted = json.loads((content.metadata() or {})["config"])["model"]
        sizes = {name: noted[name] for name in ("frames", "image_size") if name in noted}
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    # True is not a number
    return {name: size for name, size in sizes.items() if type(size) is int and size > 0}


def check_tensors(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights that no model can use; costs one pass over the memory.

    Args:
        tensors: Name -> tensor.
        source: Name of the file, for messages.

    Raises:
        ValueError: For the first tensor with NaN or infinite values, of integers or complex
            numbers, or in a form that is not plain memory.
    """
    for name, value in tensors.items():
        fault = _fault_of(name, value)
        if fault:
            kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
            raise ValueError(
                f"{source} is refused: {name} ({kind}) {fault}; {_AGAIN}, take an earlier "
                "checkpoint or convert it to floating-point numbers"
            )


def _fault_of(name: str, value: Tensor) -> str:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is sparse, quantised or without values"
    if value.nbytes > (stored := value.untyped_storage().nbytes()):
        return f"claims {value.nbytes:,} bytes, and {stored:,} are stored"
    if re.fullmatch(NOT_WEIGHTS, name):
        return ""
    if value.dtype not in _FLOATS:  # a counter or an index of somebody's head may be an integer
        integer = value.dtype in _INTEGERS and not re.fullmatch(WEIGHTS, name)
        return "" if integer else "is not of floating-point numbers of 16, 32 or 64 bits"
    if value.numel() and not all(bound.isfinite() for bound in value.aminmax()):
        nan, infinite = int(value.isnan().sum()), int(value.isinf().sum())
        return f"has {nan:,} NaN and {infinite:,} infinite values"
    return ""


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn what a reader raises of a damaged file, which may be anything, into a ValueError."""
    try:
        yield
    except Exception as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {match[1]}" if match else str(error).partition("\n")[0][:200]
        if not reason or "weights_only" in reason:  # torch's advice to read it unsafely
            reason = type(error).__name__
        raise ValueError(
            f"{name} is refused: it is damaged, no checkpoint, or holds Python objects that could "
            f"run code ({reason}); {_AGAIN} or convert it to safetensors"
        ) from error


def _fault_of_file(file: BinaryIO) -> str:
    """Find what torch should not see in a file, or ""; an archive by its table of contents."""
    file.seek(0)
    start = file.read(100)
    if not start.startswith(_ARCHIVE):
        meanings = (meaning for first, meaning in _LOOKS_LIKE.items() if start.startswith(first))
        return next(meanings, "" if start else "it is empty")
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if any(record.filename.partition("/")[2] == "constants.pkl" for record in records):
            return "it is a TorchScript archive"
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            return "a record is compressed, and torch.save compresses nothing"
        if not any(record.CRC for record in records):
            for record in records:  # torch.serialization.set_crc32_options(False)
                record.CRC = None  # type: ignore[assignment]  # which zipfile does not compare
        damaged = archive.testzip()
        return f"its record {damaged} is damaged" if damaged else ""


def list_names(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut what is too long for a name."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    plain = (" ".join(name.split()) for name in names[:shown])
    return ", ".join(n if len(n) <= 120 else n[:100] + "..." for n in plain) + rest
