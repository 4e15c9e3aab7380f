"""Files of a checkpoint: the list with their digests, and weights as `.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_backbone.checkpoints.runs.engine import EMA_WEIGHTS as EMA_WEIGHTS
from eva_backbone.checkpoints.runs.engine import MARKER, listed_files
from eva_backbone.checkpoints.runs.engine import WEIGHTS as WEIGHTS
from eva_backbone.checkpoints.runs.engine import is_complete as is_complete
from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import flush, write_text
from eva_data.outputs.tensors import write_tensors
from eva_engine import distributed

RUN = "run.json"
_FORMAT = 2  # of the marker: {"format": 2, "files": {name: [size, SHA-256]}}; 1 was {name: size}
_CONFIG = "config"


def mark_complete(folder: Path) -> None:
    """Flush all files and list them with sizes and digests; the same call on all processes.

    Args:
        folder: Folder of the checkpoint, written to the end.

    Raises:
        OSError: On all processes, if something cannot be read or written.
    """
    main = distributed.rank() == 0
    paths = sorted(folder.rglob("*")) if main else []
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    names = distributed.gather(names)[0]
    own: dict[str, tuple[int, str]] = {}
    problem: OSError | None = None
    try:
        for name in names[distributed.rank() :: distributed.world_size()]:
            flush(folder / name)
            own[name] = ((folder / name).stat().st_size, sha256_of(folder / name))
    except OSError as error:
        problem = error
    distributed.raise_together(problem)
    files = {name: entry for part in distributed.gather(own) for name, entry in part.items()}
    try:
        if main:
            for inner in (path for path in paths if path.is_dir()):
                flush(inner)
            listed = {"format": _FORMAT, "files": {name: files[name] for name in names}}
            write_text(folder / MARKER, json.dumps(listed, indent=1))
            flush(folder)
    except OSError as error:
        problem = error
    distributed.raise_together(problem)


def damage_of(folder: Path, *, part: int = 0, parts: int = 1) -> str | None:
    """Read a checkpoint's files and compare their digests.

    Args:
        folder: Folder of the checkpoint.
        part: Number of the share of the files to read.
        parts: Number of shares.

    Returns:
        The damage, or None. Of a checkpoint without digests only sizes are compared.
    """
    files = listed_files(folder)
    if isinstance(files, str):
        return files
    for name, digest in list(files.items())[part::parts]:
        try:
            if digest is not None and sha256_of(folder / name) != digest:
                return f"{name} is not what was written (another SHA-256)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    if part == 0:
        try:
            read_run(folder)
        except (OSError, ValueError) as error:
            return f"{RUN} cannot be read ({error})"
    return None


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json` of a checkpoint.

    Raises:
        ValueError: If it is not the record of a run.
    """
    content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise ValueError("it names no step")
    return content


def save_weights(
    state: dict[str, Tensor], file: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Write tensors in the first process, completely or not at all; the others do nothing.

    Args:
        state: Name -> tensor.
        file: `.safetensors`.
        config: Config of the run, for `read_config`.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    if distributed.rank():
        return
    metadata = {_CONFIG: json.dumps(config)} if config is not None else None
    write_tensors(state, file, metadata)


def read_config(file: Path) -> dict[str, Any] | None:
    """Read the config of the run that wrote a `.safetensors` file; None if it holds none.

    Args:
        file: Weights of any origin.

    Raises:
        ValueError: If the file is damaged, or what it holds is not a config.
    """
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as content:
            text = (content.metadata() or {}).get(_CONFIG)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged, or not a .safetensors file ({error})") from error
    if not text:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} notes a config that is not JSON ({error})") from error
    if config is not None and not isinstance(config, dict):
        raise ValueError(f"{file} notes a config that is not a table: {text[:60]}")
    noted: dict[str, Any] | None = config
    return noted
