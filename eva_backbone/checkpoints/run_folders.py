"""Output folders of runs of all trainers, and the files of their weights.

`best/` and `checkpoints/step_N/` of `eva_engine`; numbered `.pth` files and `last_checkpoint` of
detectron2 and mmengine. A file that `last_checkpoint` does not name may be cut: a run that was
killed left it.
"""

import contextlib
import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from eva_backbone.checkpoints.verification import require_regular_file

logger = logging.getLogger(__name__)

MARKER = "COMPLETE"  # in a checkpoint of eva_engine: its files with sizes and digests
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
ADAPTER, EMA_ADAPTER = f"adapter/{ADAPTER_WEIGHTS}", f"adapter_ema/{ADAPTER_WEIGHTS}"
# What a run with adapters has in place of these files, in peft's folders.
ADAPTERS = {WEIGHTS: ADAPTER, EMA_WEIGHTS: EMA_ADAPTER}
LORA = "lora"  # key of a checkpoint of such a run of detectron2 or mmengine, which lacks the base
CONFIG, CHECKPOINTS, BEST, RECORD = "config.json", "checkpoints", "best", "best.json"
EVALUATION = "evaluation"  # metadata of best weights: step and results, as in the record
LATEST = "last_checkpoint"  # detectron2's and mmengine's note of the newest checkpoint
_FINAL = "model_final.pth"
_DETECTRON2 = re.compile(r"model_(\d+)\.pth")
_MMENGINE = re.compile(r"(?:iter|epoch)_(\d+)\.pth")


def weights_of_run(folder: Path, *, ema: bool | None = None) -> Path:
    """Find the weights of a run: the best ones if it kept them, else the last complete ones.

    Args:
        folder: Output folder of any training, or a checkpoint in it; or a folder of adapters.
        ema: True for the moving average, False for the weights without it; None takes the better
            one of the best weights, and else the weights without it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there are no such weights.
    """
    weights: Path | None = None
    if is_adapter(folder):
        weights = None if ema else folder / ADAPTER_WEIGHTS
    elif is_complete(folder):
        weights = of_checkpoint(folder, ema=bool(ema))
    elif (folder / CHECKPOINTS).is_dir():
        weights = best_of_engine(folder, ema=ema)
        if weights is None and (complete := complete_checkpoints(folder)):
            weights = of_checkpoint(complete[-1], ema=bool(ema))
    elif not ema:  # the other trainers keep no moving average
        last = last_of_mmengine if is_mmengine_run(folder) else last_of_detectron2
        best = best_of_mmengine(folder)
        weights = adapter_of(folder, best=bool(best)) or best or last(folder)
    if weights is None:
        raise FileNotFoundError(
            f"{str(folder)!r} is a folder without {'averaged ' if ema else ''}weights of a run: "
            "name the output folder of a training, or one file of weights"
        )
    logger.info("of the run in %s: %s", folder, weights.relative_to(folder))
    return weights


def describe_missing(path: Path) -> str:
    """Say that a path is not there, and what beside it has a close name; "" if it is there."""
    if os.path.exists(path):  # noqa: PTH110 (Path's raises for a name that is too long)
        return ""
    existing = path
    while not os.path.isdir(existing.parent):  # noqa: PTH112
        existing = existing.parent
    names = [sibling.name for sibling in existing.parent.iterdir()]
    close = [
        str(existing.with_name(sibling))
        for sibling in difflib.get_close_matches(existing.name, names)
    ]
    advice = f" (close to it: {', '.join(close)})" if close else ""
    return f"there is no {str(path)[:200]}{advice}"


def describe_weights(source: str) -> str:
    """Name weights for people: a run's folder by the file that is taken of it."""
    if not source:
        return "random"
    try:
        folder = Path(source).expanduser()
        file = weights_of_run(folder) if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # said where the weights are read
        return source
    if file is None:
        return source
    return f"{file} (moving average)" if is_average(file) else str(file)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder is one of adapters, in peft's format."""
    return (folder / ADAPTER_WEIGHTS).is_file() and (folder / ADAPTER_CONFIG).is_file()


def adapter_of(folder: Path, *, best: bool = False) -> Path | None:
    """Find the adapter that a run of detectron2 or mmengine has in place of whole weights."""
    file = folder / BEST / ADAPTER if best else folder / ADAPTER
    return file if file.is_file() else None


def folder_of_run(weights: Path) -> Path:
    """Return the folder of a run of detectron2 or mmengine, by itself or by weights in it."""
    folder = weights if weights.is_dir() else weights.parent
    if is_adapter(folder):
        folder = folder.parent
        return folder.parent if folder.name == BEST else folder
    return folder


def is_average(file: Path) -> bool:
    """Return whether a file of weights of a run is its moving average."""
    return file.name == EMA_WEIGHTS or f"{file.parent.name}/{file.name}" == EMA_ADAPTER


def is_engine_run(folder: Path) -> bool:
    """Return whether a folder is the output of a run of `eva_engine`."""
    return (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir()


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the folders of the complete checkpoints of a run of `eva_engine`, oldest first."""
    return sorted(path for path in (folder / CHECKPOINTS).glob("step_*") if is_complete(path))


def has_trained_weights(folder: Path) -> bool:
    """Return whether a folder has checkpoints or best weights of a run of any trainer."""
    noted = (folder / LATEST).exists() or (folder / BEST / RECORD).is_file()
    return noted or bool(complete_checkpoints(folder))


def is_complete(folder: Path) -> bool:
    """Check that a checkpoint lists its files and all have their size, without reading them."""
    return not isinstance(listed_files(folder), str)


def listed_files(folder: Path) -> dict[str, str] | str:
    """Read what a checkpoint of `eva_engine` lists.

    Returns:
        Name -> digest of all files if they are there with their sizes, or the damage.
    """
    try:
        require_regular_file(folder / MARKER)
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        files = {name: (size, str(digest)) for name, (size, digest) in content["files"].items()}
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
    """Find the best weights of a run of `eva_engine`, `ema` as for `weights_of_run`, or None."""
    record = _table(folder / BEST / RECORD)
    kinds = (EMA_WEIGHTS, WEIGHTS) if ema is None else ((WEIGHTS, EMA_WEIGHTS)[ema],)
    names = [name for kind in kinds for name in (kind, ADAPTERS[kind])]
    run = _table(folder / CONFIG).get("run")
    metric = run.get("best_metric") if isinstance(run, dict) else None

    def value(name: str) -> float:
        results = record[name].get("results")
        score = results.get(str(metric)) if isinstance(results, dict) else None
        if not isinstance(score, int | float):
            return float("-inf")
        return -score if metric == "loss" else score

    evaluations = [name for name in names if isinstance(record.get(name), dict)]
    evaluations = [name for name in evaluations if (folder / BEST / name).is_file()]
    best = max(evaluations, key=value, default=None)  # the moving average, if both are as good
    return None if best is None else folder / BEST / best


def evaluation_of_best(folder: Path, file: Path) -> dict[str, Any]:
    """Read step (from 0) and results of best weights that `best_of_engine` has found.

    The file itself has them, and then perhaps others than the record, if a kill came between.
    """
    with contextlib.suppress(SafetensorError, OSError, ValueError):
        with safe_open(file, framework="np") as content:
            entry = json.loads((content.metadata() or {}).get(EVALUATION, ""))
        if isinstance(entry, dict) and isinstance(entry.get("results"), dict):
            return entry
    return dict(_table(folder / BEST / RECORD)[file.relative_to(folder / BEST).as_posix()])


def of_checkpoint(folder: Path, *, ema: bool) -> Path:
    """Name the file of the weights of a complete checkpoint, or of their moving average."""
    name = EMA_WEIGHTS if ema else WEIGHTS
    adapter = folder / ADAPTERS[name]
    return adapter if adapter.is_file() else folder / name


def is_mmengine_run(folder: Path) -> bool:
    """Return whether a folder is the work folder of mmengine's runner."""
    return bool(_numbered(folder))


def best_of_mmengine(folder: Path) -> Path | None:
    """Find the weights of the best evaluation of a run of mmengine; None if it kept none."""
    files = filter(Path.is_file, folder.glob("best_*.pth"))  # a link may lead nowhere
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def last_of_mmengine(folder: Path) -> Path:
    """Find the checkpoint that `last_checkpoint` names, else that of the highest number."""
    return noted_checkpoint(folder) or max(_numbered(folder))[1]


def is_detectron2_run(folder: Path) -> bool:
    """Return whether a folder is the output of detectron2's trainer."""
    return (folder / "config.yaml").is_file() and not is_mmengine_run(folder)


def last_of_detectron2(folder: Path) -> Path | None:
    """Find the checkpoint that `last_checkpoint` names, else `model_final.pth`; None without one.

    The folder may have been moved since.
    """
    final = folder / _FINAL
    return noted_checkpoint(folder) or (final if final.is_file() else None)


def noted_checkpoint(folder: Path) -> Path | None:
    """Return the file that `last_checkpoint` names, if it is in the folder."""
    note = folder / LATEST
    try:
        name = Path(note.read_text(encoding="utf-8").strip()).name if note.is_file() else ""
    except (OSError, ValueError):
        return None
    return folder / name if name and (folder / name).is_file() else None


def step_of_detectron2(file: Path) -> int | None:
    """Return the steps behind a checkpoint of detectron2; None for a file that does not say it."""
    match = _DETECTRON2.fullmatch(file.name)
    if match or file.name == _FINAL:
        return int(match[1]) + 1 if match else None
    import torch  # of a run that was stopped

    step = torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("iteration")
    return int(step) + 1 if isinstance(step, int) else None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Step or epoch and file of each checkpoint that is written by mmengine in its turn."""
    matches = ((_MMENGINE.fullmatch(path.name), path) for path in folder.glob("*.pth"))
    return [(int(name[1]), path) for name, path in matches if name and path.is_file()]


def _table(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
