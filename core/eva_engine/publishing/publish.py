"""What is published of a run, in one folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from eva_backbone.checkpoints.hub import DEFAULT_FILE
from eva_backbone.checkpoints.run_folders import is_detectron2_run, is_engine_run, is_mmengine_run
from eva_data.files import write_tensors, write_text
from eva_engine.publishing.card import model_card
from eva_engine.publishing.engine_runs import read_engine_run
from eva_engine.publishing.framework_runs import read_detectron2_run, read_mmengine_run
from eva_engine.publishing.privacy import clean, without_places, yaml_without_places
from eva_engine.publishing.runs import Run

CARD, RESULTS = "README.md", "results.json"
FILES = (DEFAULT_FILE, CARD, RESULTS, "recipe.json", "config.yaml", "config.py")
KINDS: tuple[tuple[Callable[[Path], bool], Callable[..., Run]], ...] = (
    (is_engine_run, read_engine_run),
    (is_mmengine_run, read_mmengine_run),
    (is_detectron2_run, read_detectron2_run),
)


def read_run_folder(folder: Path, *, best: bool = False, ema: bool = False) -> Run:
    """Describe a run of any trainer.

    Args:
        folder: Its output folder.
        best: Take the weights of the best evaluation.
        ema: Take the moving average.

    Returns:
        The run.

    Raises:
        ValueError: If the folder is not that of a run, or the weights are not there.
    """
    for is_kind, read in KINDS:
        if is_kind(folder):
            return read(folder, best=best, ema=ema)
    there = "is not a folder" if not folder.is_dir() else "holds no complete checkpoint of a run"
    raise ValueError(f"{folder} {there}: name the output folder of a training")


def compose(run: Run, repository: str, folder: Path, *, licence: str) -> None:
    """Write all that is published into a folder.

    Args:
        run: The run.
        repository: `ORG/NAME`, for the model card.
        folder: An empty folder.
        licence: Identifier of the licence of the weights.

    Raises:
        ValueError: If the weights are damaged.
        UnwritableError: If the disk is full, for example.
    """
    weights = _unshared(run.read(run.weights))
    notes = {
        name: json.dumps(clean(json.loads(text))) for name, text in run.metadata.items()
    } | {"format": "pt"}  # fmt: skip
    write_tensors(weights, folder / DEFAULT_FILE, notes)
    parameters = sum(value.numel() for value in weights.values())
    card = model_card(run, repository, licence=licence, parameters=parameters)
    counts = {run.unit: run.step, f"{run.unit}s": run.steps}
    results = counts | {"scores": dict(run.scores)}
    write_text(folder / CARD, card)
    write_text(folder / run.recipe_name, _settings(run))
    write_text(folder / RESULTS, _json(results))


def _settings(run: Run) -> str:
    if run.recipe_name.endswith(".json"):
        return _json(clean(json.loads(run.recipe)))
    yaml = run.recipe_name.endswith(".yaml")
    return yaml_without_places(run.recipe) if yaml else without_places(run.recipe)


def _json(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share their memory with another one, which `.safetensors` cannot hold."""
    seen: set[int] = set()
    result = {}
    for name, value in weights.items():
        place = value.untyped_storage().data_ptr()
        result[name] = value.clone() if place in seen else value
        seen.add(place)
    return result
