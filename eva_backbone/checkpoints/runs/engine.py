"""Runs of `eva_engine`: `best/` and `checkpoints/step_N/`, which is complete or not there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.verification import require_regular_file

MARKER = "COMPLETE"  # in a checkpoint: its files with sizes and digests
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
CONFIG, CHECKPOINTS, BEST, RECORD = "config.json", "checkpoints", "best", "best.json"
_STEP = "step_*"


def is_engine_run(folder: Path) -> bool:
    """Return whether a folder is the output of a run of `eva_engine`."""
    return (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir()


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the folders of the complete checkpoints of a run of `eva_engine`, oldest first."""
    return sorted(path for path in (folder / CHECKPOINTS).glob(_STEP) if is_complete(path))


def is_complete(folder: Path) -> bool:
    """Check that a checkpoint lists its files and all have their size, without reading them."""
    return not isinstance(listed_files(folder), str)


def listed_files(folder: Path) -> dict[str, str | None] | str:
    """Read what a checkpoint of `eva_engine` lists.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        Name -> digest of all files if they are there with their sizes, or the damage.
    """
    files: dict[str, tuple[int, str | None]]
    try:
        require_regular_file(folder / MARKER)
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if "format" in content:
            listed = content["files"].items()
            files = {name: (size, str(digest)) for name, (size, digest) in listed}
        else:
            files = {name: (size, None) for name, size in content.items()}
    except FileNotFoundError:
        return f"it has no {MARKER}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{MARKER} cannot be read"
    for name, (size, _) in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MARKER} names {name}, which is not in the checkpoint"
        try:
            require_regular_file(folder / name)
            actual = (folder / name).stat().st_size
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
        if actual != size:
            return f"{name} has {actual} bytes and not {size}"
    if not files:
        return f"{MARKER} lists no file"
    return {name: digest for name, (_, digest) in files.items()}


def best_of_engine(folder: Path, *, ema: bool | None = None) -> Path | None:
    """Find the best weights that a run of `eva_engine` kept.

    Args:
        folder: Output folder.
        ema: As for `weights_of_run`.

    Returns:
        The file; None if there is none that `best.json` names.
    """
    record = _table(folder / BEST / RECORD)
    kept = {
        name: record[name]
        for name in ((EMA_WEIGHTS, WEIGHTS) if ema is None else ((WEIGHTS, EMA_WEIGHTS)[ema],))
        if isinstance(record.get(name), dict) and (folder / BEST / name).is_file()
    }
    if not kept:
        return None
    run = _table(folder / CONFIG).get("run")
    metric = run.get("best_metric") if isinstance(run, dict) else None
    sign = -1 if metric == "loss" else 1

    def value(name: str) -> float:
        results = kept[name].get("results")
        found = results.get(str(metric)) if isinstance(results, dict) else None
        return sign * found if isinstance(found, int | float) else float("-inf")

    return folder / BEST / max(kept, key=value)  # the moving average, if both are as good


def newest_of_engine(folder: Path, *, ema: bool) -> Path | None:
    """Find the weights of the newest complete checkpoint of a run; None if it has none.

    Args:
        folder: Output folder.
        ema: Take the moving average.

    Raises:
        FileNotFoundError: If the checkpoint has no such weights.
    """
    complete = complete_checkpoints(folder)
    return of_checkpoint(complete[-1], ema=ema) if complete else None


def of_checkpoint(folder: Path, *, ema: bool) -> Path:
    """Find the weights of a checkpoint.

    Args:
        folder: Folder of a complete checkpoint.
        ema: Take the moving average.

    Raises:
        FileNotFoundError: If it has no such weights.
    """
    file = folder / (EMA_WEIGHTS if ema else WEIGHTS)
    if not file.is_file():
        lacks = "moving average: the run had ema_decay=0" if ema else WEIGHTS
        raise FileNotFoundError(f"{folder} has no {lacks}")
    return file


def _table(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
