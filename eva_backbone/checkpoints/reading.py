"""Reading files of weights that others wrote: nothing in them runs, damage is one sentence.

`torch.load(weights_only=True)` runs no code, but it believes a file's sizes, checks no checksum and
waits for ever on a pipe. What is refused here: anything but a regular file, a torch archive that is
cut, has a record whose CRC-32 differs, has compressed records (`torch.save` writes none: a few MB
could ask for all memory), or names anything that is not plain data.
"""

import argparse
import copy
import json
import mmap
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import CONTAINERS, NOT_WEIGHTS, WEIGHTS
from eva_backbone.checkpoints.verification import require_regular_file as require_regular_file

Allowed = Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_AGAIN = "get it from its publisher again"
_LOCAL_HEADER = 30  # bytes, before a record's name
_END_RECORD = 22  # bytes, before an archive's comment
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
# Pickled calls of this take any amount of memory; no state dict has one.
_MEMORY = (b"cbuiltins\nbytearray\n", b"c__builtin__\nbytearray\n")


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
        FileNotFoundError: If there is no file.
        OSError: If it may not be read.
        ValueError: If it is not a regular file, damaged, too large for the memory, or holds
            anything but plain data.
    """
    path = require_regular_file(path)
    with path.open("rb") as file:
        archive = _check_content(file, path.name)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # on odd protocols; what matters becomes an error
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        # mapped first: torch reads what the pickle claims, not what the archive has
        return copy.deepcopy(content) if archive and not mapped else content
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise _refusal(path.name, f"it names {named[1]}" if named else "") from error
    except MemoryError as error:
        raise ValueError(f"{path.name} does not fit in the memory") from error
    except OSError:
        raise
    except Exception as error:  # the unpickler of a damaged file raises anything
        reason = str(error).partition("\n")[0][:200]
        if not reason or "weights_only" in reason:  # torch's advice to read it unsafely
            reason = type(error).__name__
        raise _unreadable(path.name, reason) from error


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: Path of a regular file.

    Returns:
        Name -> tensor on the CPU.

    Raises:
        FileNotFoundError: If there is no file.
        OSError: If it may not be read.
        ValueError: If it is not a regular file, or damaged.
    """
    from safetensors.torch import load_file

    path = require_regular_file(path)
    try:
        return load_file(path)
    except OSError:
        raise
    except Exception as error:  # SafetensorError, and whatever an unknown type leads to
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path.name} is not a complete safetensors file ({reason}); download it again"
        ) from error


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file without running any code in it.

    Args:
        path: `.safetensors`, or anything that `torch.save` wrote.

    Returns:
        Name -> tensor on the CPU, out of the container that the file wraps them in.

    Raises:
        ValueError: If the file is damaged, holds code or no weights, or weights that are not
            finite floating-point numbers.
    """
    content: Any
    if path.suffix == ".safetensors":
        content = read_safetensors(path)
    else:  # the official training scripts pack their arguments, a Namespace, beside the weights
        ignored: Allowed = [(_Ignored, name) for name in _BESIDE_WEIGHTS]
        attribute = (_attribute_of_ignored, "builtins.getattr")
        allowed = [argparse.Namespace, attribute, *ignored]
        content = read_torch_file(path, allowed=allowed, mapped=True)
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path.name} holds no weights but {type(content).__name__}")
    named = {name: v for name, v in content.items() if isinstance(name, str)}
    odd = [str(name) for name in content if not isinstance(named.get(name), Tensor)]
    if odd:
        raise ValueError(
            f"{path.name} holds no plain state dict: {listed(odd)} are not named tensors; "
            f"known containers are {', '.join(CONTAINERS)}"
        )
    check_tensors(named, source=path.name)
    if all(name.startswith("module.") for name in named):
        return {name.removeprefix("module."): value for name, value in named.items()}
    return named


def noted_frames(path: Path) -> int | None:
    """Read how many frames a run of video training notes in its weights.

    Args:
        path: Weights of any origin.

    Returns:
        Frames of the clips that the model was made for; None where nothing says so.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as content:
            frames = json.loads((content.metadata() or {})["config"])["model"]["frames"]
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return frames if type(frames) is int and frames > 0 else None  # True is not a number


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
        kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            form = "without values" if value.is_meta else "sparse or quantised"
            raise ValueError(f"{source} is refused: {name} is {form} ({kind}), not plain numbers")
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(
                f"{source} is refused: {name} claims {value.nbytes:,} bytes ({kind}), and "
                f"{value.untyped_storage().nbytes():,} are stored"
            )
        if re.fullmatch(NOT_WEIGHTS, name):
            continue
        if value.dtype not in _FLOATS:
            integer = value.dtype in _INTEGERS and not re.fullmatch(WEIGHTS, name)
            if not integer:  # a counter or an index of somebody's head may be one
                raise ValueError(
                    f"{source} is refused: {name} is {kind}, and weights are floating-point "
                    f"numbers of 16, 32 or 64 bits; {_AGAIN} or convert it"
                )
        elif value.numel() and not all(bound.isfinite() for bound in value.aminmax()):
            raise ValueError(
                f"{source} is refused: {name} {kind} has {int(value.isnan().sum()):,} NaN and "
                f"{int(value.isinf().sum()):,} infinite values; it is damaged, or the training "
                "that wrote it diverged: take an earlier checkpoint"
            )


def _unreadable(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} cannot be read, it is truncated or no checkpoint ({reason}); download it again"
    )


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} is refused: it is damaged or holds Python objects that could run code "
        f"({reason or 'its pickle is malformed'}); {_AGAIN} or convert it to safetensors"
    )


def _check_content(file: Any, name: str) -> bool:
    """Refuse a file that torch should not see; returns whether it is an archive."""
    if not os.fstat(file.fileno()).st_size:
        raise _unreadable(name, "it is empty")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        archive = content[:4] == b"PK\x03\x04"  # what torch looks at, too
        for start, meaning in _LOOKS_LIKE.items():
            if content[: len(start)] == start:
                raise _unreadable(name, meaning)
        if archive:
            _check_archive(file, content, name)
        elif any(content.find(call) >= 0 for call in _MEMORY):  # sizes are claimed, not stored
            raise _refusal(name, "it names bytearray")
        return archive


def _check_archive(file: Any, content: mmap.mmap, name: str) -> None:
    """Check the records of a torch archive against its table of contents."""
    try:
        with zipfile.ZipFile(file) as archive:
            records, comment = archive.infolist(), archive.comment
    except Exception as error:  # zipfile raises anything for a damaged table
        raise _unreadable(name, str(error) or type(error).__name__) from error
    end = content.size() - _END_RECORD - len(comment)
    if end < 0 or content[end : end + 4] != b"PK\x05\x06":
        raise _unreadable(name, "there is something behind its end")
    names = [record.filename for record in records]
    if len(set(names)) < len(names):
        raise _unreadable(name, "it has two records of one name")
    if any(record.partition("/")[2] == "constants.pkl" for record in names):
        raise ValueError(
            f"{name} is refused: it is a TorchScript archive, which holds code; save the state "
            "dict of its module as safetensors"
        )
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(
                f"{name} is refused: its record {record.filename} is compressed ("
                f"{record.compress_size:,} bytes claim to be {record.file_size:,}), and torch.save "
                f"compresses nothing; {_AGAIN}"
            )
    if sum(record.file_size for record in records) > content.size():
        raise _unreadable(name, "its records claim more bytes than it has")
    # torch.serialization.set_crc32_options(False) writes 0 everywhere
    checksums = any(record.CRC for record in records)
    for record in records:
        if checksums or record.filename.endswith("data.pkl"):
            _check_record(content, record, name, checksum=checksums)


def _check_record(
    content: mmap.mmap, record: zipfile.ZipInfo, name: str, *, checksum: bool
) -> None:
    header = record.header_offset
    if content[header : header + 4] != b"PK\x03\x04" or header + _LOCAL_HEADER > content.size():
        raise _unreadable(name, f"its record {record.filename} is not where it should be")
    lengths = struct.unpack("<HH", content[header + _LOCAL_HEADER - 4 : header + _LOCAL_HEADER])
    start = header + _LOCAL_HEADER + sum(lengths)
    if start + record.file_size > content.size():
        raise _unreadable(name, f"its record {record.filename} is cut")
    with memoryview(content) as view, view[start : start + record.file_size] as stored:
        if checksum and zlib.crc32(stored) != record.CRC:
            raise ValueError(
                f"{name} is damaged: its record {record.filename} does not have its checksum "
                f"(CRC-32 {record.CRC:08x}); {_AGAIN}, or take an earlier checkpoint of the run"
            )
    if record.filename.endswith("data.pkl"):
        with memoryview(content) as view:
            pickled = bytes(view[start : start + record.file_size])
        if any(call in pickled for call in _MEMORY):
            raise _refusal(name, "it names bytearray")


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut what is too long for a name."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    plain = (" ".join(name.split()) for name in names[:shown])
    return ", ".join(n if len(n) <= 120 else n[:100] + "..." for n in plain) + more
