"""Runs of detectron2's and mmengine's trainers, read without those frameworks."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eva_backbone.checkpoints.reading import read_weights
from eva_engine.publishing.runs import Run, finite, lines_of

_LAST = "last_checkpoint"
_DETECTRON2 = re.compile(r"model_(\d+)\.pth")
_MMENGINE = re.compile(r"(?:iter|epoch)_(\d+)\.pth")


def is_detectron2_run(folder: Path) -> bool:
    """Return whether a folder is the output of detectron2's trainer."""
    return (folder / "config.yaml").is_file() and not is_mmengine_run(folder)


def is_mmengine_run(folder: Path) -> bool:
    """Return whether a folder is the work folder of mmengine's runner."""
    return bool(_numbered(folder))


def read_detectron2_run(folder: Path, *, best: bool, ema: bool) -> Run:
    """Describe a run of `detection/`.

    Args:
        folder: Its output folder.
        best: Refused: this trainer keeps no best weights.
        ema: Refused: it has no moving average.

    Returns:
        The run.

    Raises:
        ValueError: If it has no complete checkpoint, or `best` or `ema` is asked for.
    """
    if best or ema:
        raise ValueError("a run of detectron2 has its last weights only: leave --best, --ema out")
    weights = _last(folder)
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    log = list(lines_of(folder / "metrics.json"))
    most = _number(r"^  max_iter: (\d+)", text)
    named = _DETECTRON2.fullmatch(weights.name)
    step = int(named[1]) + 1 if named else most or 0
    scores = {
        name: value
        for line in log
        if line.get("iteration") == step
        for name, value in finite(line).items()
        if re.match(r"(bbox|segm|boundary)/AP(?!-)", name)
    }
    sets = re.findall(r"\bnames: \[?([\w.-]+)", text)
    uses = {("val" if "val" in name or "test" in name else "train"): name for name in sets}
    return Run(
        folder=folder,
        task="detection",
        trainer="detectron2",
        weights=weights,
        read=read_weights,
        recipe=text,
        recipe_name="config.yaml",
        step=step,
        steps=most,
        scores=scores,
        data=uses,
        begun_from=_text(r"^  init_checkpoint: ['\"]?([^'\"\n]*)", text),
        hours=_hours(log, "iteration"),
    )


def read_mmengine_run(folder: Path, *, best: bool, ema: bool) -> Run:
    """Describe a run of `segmentation/` or `mmdetection/`.

    Args:
        folder: Its work folder.
        best: Take the weights of the best evaluation, not the last ones.
        ema: Refused: the trainers have no moving average.

    Returns:
        The run.

    Raises:
        ValueError: If it has no complete checkpoint, not the best one, or `ema` is asked for.
    """
    if ema:
        raise ValueError("a run of mmengine has no moving average: leave --ema out")
    weights = max(_numbered(folder))[1]
    if best:
        found = sorted(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise ValueError(f"{folder} has no best_*.pth: leave --best out")
        weights = found[-1]
    configs = sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise ValueError(f"{folder} holds no config of its run (*.py): is it a work folder?")
    text = configs[-1].read_text(encoding="utf-8")
    step = _number(r"_(\d+)\.pth$", weights.name) or 0
    log = [
        line for file in sorted(folder.glob("*/vis_data/scalars.json")) for line in lines_of(file)
    ]
    uses = re.findall(r"^(train|val)_dataloader = dict\((.*?)^\w", text, re.DOTALL | re.MULTILINE)
    roots = {use: _text(r"data_root='([^']*)'", part) for use, part in uses}
    return Run(
        folder=folder,
        task="mmdetection" if "eva_mmdetection" in text else "segmentation",
        trainer="mmengine",
        weights=weights,
        read=_read_mmengine,
        recipe=text,
        recipe_name="config.py",
        step=step,
        steps=_number(r"max_(?:iters|epochs)=(\d+)", text),
        scores=_last_scores(log, step),
        data={use: root for use, root in roots.items() if root},
        begun_from=_text(r"^load_from = '([^']*)'", text)
        or _text(r"\bpretrained='([^']*)'", text),
        hours=_hours(log, "step"),
    )  # fmt: skip


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Step or epoch and file of each checkpoint that mmengine writes in its turn."""
    found = ((_MMENGINE.fullmatch(path.name), path) for path in folder.glob("*.pth"))
    return [(int(name[1]), path) for name, path in found if name]


def _last(folder: Path) -> Path:
    """Find the checkpoint that `last_checkpoint` names; the folder may have been moved since."""
    note = folder / _LAST
    named = Path(note.read_text(encoding="utf-8").strip()).name if note.is_file() else ""
    if not named or not (folder / named).is_file():
        raise ValueError(f"{folder} holds no complete checkpoint of a run: nothing to publish")
    return folder / named


def _last_scores(log: list[dict[str, Any]], step: int) -> dict[str, float]:
    """Read the evaluation after a step; lines of training have a loss."""
    found: dict[str, float] = {}
    for line in log:
        if line.get("step") == step and "loss" not in line:
            found = finite(line)
    dropped = ("step", "time", "data_time", "iter", "epoch", "memory")
    # pycocotools says -1 where there is nothing to score
    return {name: value for name, value in found.items() if name not in dropped and value >= 0}


def _hours(log: list[dict[str, Any]], counter: str) -> float | None:
    seconds, before = 0.0, 0
    for line in log:
        now, each = line.get(counter), line.get("time")
        if isinstance(now, int) and each and "loss" in str(line.keys()) and now >= before:
            seconds += max(now - before, 1) * each
            before = now
    return seconds / 3600 if seconds else None


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None


def _text(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else ""


class _Statistics:
    """Takes the place of mmengine's logged numbers, which are not published."""

    def __setstate__(self, state: object) -> None:
        del state


def _no_method(owner: object, name: str) -> None:
    """Take the place of `getattr`, by which logged numbers name their statistics."""


def _read_mmengine(file: Path) -> Mapping[str, Tensor]:
    packages = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2, and since
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    beside_weights: list[Any] = [
        (_Statistics, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_no_method, "builtins.getattr"),
        np.ndarray,
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
        *(
            (getattr(multiarray, name), f"{package}.{name}")
            for package in packages
            for name in ("_reconstruct", "scalar")
        ),
    ]
    with torch.serialization.safe_globals(beside_weights):
        return read_weights(file)
