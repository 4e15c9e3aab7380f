"""Runs of this engine: pre-training, classification, video and CLIP."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.reading import read_safetensors
from eva_backbone.checkpoints.run_folders import (
    BEST,
    CONFIG,
    EMA_WEIGHTS,
    RECORD,
    WEIGHTS,
    best_of_engine,
    complete_checkpoints,
)
from eva_engine.checkpoints.files import damage_of, read_run
from eva_engine.publishing.runs import Run, finite, lines_of

_METRICS = "metrics.jsonl"


def read_engine_run(folder: Path, *, best: bool, ema: bool) -> Run:
    """Describe a run of this engine.

    Args:
        folder: Its output folder.
        best: Take the weights of the best evaluation, not those of the last checkpoint.
        ema: Take the moving average.

    Returns:
        The run.

    Raises:
        ValueError: If it has no complete checkpoint, or not the weights that are asked for.
    """
    config = _table(folder / CONFIG)
    newest = _newest(folder)
    record = read_run(newest)
    name = EMA_WEIGHTS if ema else WEIGHTS
    if best:
        weights, step, scores = _best(folder, name)
    else:
        weights, step = newest / name, record["step"]
        scores = _scores(folder, step - 1, ema=ema)
        if not weights.is_file():
            raise ValueError(f"{newest} has no moving average: the run had ema_decay=0")
    data, run = config.get("data", {}), config.get("run", {})
    model = config.get("model") or config.get("student") or {}
    counts = (record.get("samples_of_data"), record.get("step_batch"), run.get("epochs"))
    return Run(
        folder=folder,
        task=_task(config),
        trainer="eva_engine (DeepSpeed)",
        weights=weights,
        read=read_safetensors,
        metadata={"config": json.dumps(config)},
        recipe=json.dumps(config, indent=2) + "\n",
        recipe_name="recipe.json",
        step=step,
        steps=_steps(*counts),
        scores=scores,
        data={use: str(data[use]) for use in ("train", "val") if data.get(use)},
        begun_from=str(model.get("init_checkpoint", "")),
        hours=_hours(folder),
        processes=record.get("processes"),
    )  # fmt: skip


def _steps(samples: Any, batch: Any, epochs: Any) -> int | None:
    if not all(isinstance(count, int) and count > 0 for count in (samples, batch, epochs)):
        return None
    return int(samples // batch * epochs)


def _table(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not the config of a run")
    return content


def _newest(folder: Path) -> Path:
    complete = complete_checkpoints(folder)
    if not complete:
        raise ValueError(f"{folder} holds no complete checkpoint of a run: nothing to publish")
    newest = complete[-1]
    damage = damage_of(newest)
    if damage is not None:
        raise ValueError(f"{newest} is damaged ({damage}): nothing was published")
    return newest


def _task(config: Mapping[str, Any]) -> str:
    if "num_codes" in config:
        raise ValueError("this is the run of a tokenizer: only models with a ViT are published")
    if "student" in config:
        return "pretrain"
    if "text" in config:
        return "clip"
    return "video" if "frames" in config.get("model", {}) else "classification"


def _best(folder: Path, name: str) -> tuple[Path, int, dict[str, float]]:
    file = best_of_engine(folder, ema=name == EMA_WEIGHTS)
    if file is None:
        raise ValueError(
            f"{folder} has no best {name}: leave --best out, or set run.best_metric in the next run"
        )
    noted = _table(folder / BEST / RECORD)[name]
    return file, int(noted["step"]) + 1, finite(noted.get("results", {}))


def _scores(folder: Path, step: int, *, ema: bool) -> dict[str, float]:
    start = "val_ema_" if ema else "val_"
    scores: dict[str, float] = {}
    for line in lines_of(folder / _METRICS):
        if line.get("step") == step:
            scores |= {
                name.removeprefix(start): value
                for name, value in finite(line).items()
                if name.startswith(start) and (ema or not name.startswith("val_ema_"))
            }
    return scores


def _hours(folder: Path) -> float | None:
    seconds, before = 0.0, 0
    for line in lines_of(folder / _METRICS):
        speed, samples = line.get("samples_per_second"), line.get("samples")
        if speed and samples:
            seconds += (samples - before) / speed
            before = samples
    return seconds / 3600 if seconds else None
