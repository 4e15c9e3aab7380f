"""Runs of detectron2's and mmengine's trainers, read without those frameworks."""

import re
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.run_folders import (
    best_of_mmengine,
    last_of_detectron2,
    last_of_mmengine,
    step_of_detectron2,
)
from eva_engine.publishing.data_names import mmengine_data
from eva_engine.publishing.own_data import own_coco_data
from eva_engine.publishing.runs import Run, finite, lines_of

_OWN_DATA = "type='CocoFileDataset'"  # of `mmdetection/`


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
    weights = last_of_detectron2(folder)
    if weights is None:
        raise ValueError(f"{folder} holds no complete checkpoint of a run: nothing to publish")
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    log = list(lines_of(folder / "metrics.json"))
    most = _number(r"^  max_iter: (\d+)", text)
    step = step_of_detectron2(weights) or most or 0
    scores = {
        name: value
        for line in log
        if line.get("iteration") == step
        for name, value in finite(line).items()
        if re.match(r"(bbox|segm|boundary)/AP(?!-)", name)
    }
    sets = re.findall(r"\bnames: \[?([\w.-]+)", text)
    uses = {("val" if "val" in name or "test" in name else "train"): name for name in sets}
    own = own_coco_data(text)
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
        data=own.files if own else uses,
        own_data=own is not None,
        facts=own.facts() if own else (),
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
    weights = best_of_mmengine(folder) if best else last_of_mmengine(folder)
    if weights is None:
        raise ValueError(f"{folder} has no best_*.pth: leave --best out")
    configs = sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise ValueError(f"{folder} holds no config of its run (*.py): is it a work folder?")
    text = configs[-1].read_text(encoding="utf-8")
    step = _number(r"_(\d+)\.pth$", weights.name) or 0
    unit = "epoch" if "epoch_" in weights.name else "step"
    log = [
        line for file in sorted(folder.glob("*/vis_data/scalars.json")) for line in lines_of(file)
    ]
    uses = re.findall(r"^(train|val)_dataloader = dict\((.*?)^\w", text, re.DOTALL | re.MULTILINE)
    data = {use: mmengine_data(part) for use, part in uses}
    return Run(
        folder=folder,
        task="mmdetection" if "eva_mmdetection" in text else "segmentation",
        trainer="mmengine",
        weights=weights,
        read=read_weights,
        recipe=text,
        recipe_name="config.py",
        step=step,
        steps=_number(rf"max_{'epochs' if unit == 'epoch' else 'iters'}=(\d+)", text),
        unit=unit,
        scores=_last_scores(log, step),
        data={use: name for use, name in data.items() if name},
        own_data=_OWN_DATA in text,
        begun_from=_text(r"^load_from = '([^']*)'", text)
        or _text(r"\bpretrained='([^']*)'", text),
        hours=_hours(log, "step"),
    )  # fmt: skip


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
