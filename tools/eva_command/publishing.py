"""What `eva push` publishes of a run of any trainer: weights, model card, settings, scores."""

import argparse
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2

from eva_backbone.checkpoints import run_folders
from eva_backbone.checkpoints.hub import (
    DEFAULT_FILE,
    SCHEME,
    HubError,
    HubFile,
    explain_hub_errors,
    import_hub,
    offline,
)
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import OFFICIAL_FILES, REPOSITORY
from eva_command.doctor import installed_version
from eva_command.public_settings import (
    clean,
    data_name,
    official_name,
    read_json,
    read_python,
    read_yaml,
    section,
    task_of_engine,
    task_of_mmengine,
)
from eva_command.weights import FILES
from eva_data.saving import replace_folder, require_replaceable, write_tensors, write_text
from eva_openmmlab.run_folder import config_of_run, read_scalars
from eva_runs.commands import echo
from eva_runs.extras import DETECTRON2, TOOLKIT
from eva_runs.run_logs import read_log

_PACKAGES = {  # that train, beside torch
    "detection": ("detectron2",),
    "segmentation": ("onedl-mmengine", "onedl-mmsegmentation"),
    "mmdetection": ("onedl-mmengine", "onedl-mmdetection"),
}
_MMSEG = {"ADE20KDataset": "ade20k", "COCOStuffDataset": "coco_stuff164k"}
_NO_SCORES = re.compile("step|iter|epoch|memory|(data_)?time")  # in mmengine's log


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is published of a finished or stopped run."""

    task: str
    weights: Path
    recipe_name: str  # of the file of published settings
    recipe: str  # its text
    step: int  # behind the weights
    steps: int | None  # of the complete run, if that is known
    unit: str = "step"  # or "epoch"
    scores: Mapping[str, float]  # of these weights
    data: Mapping[str, str]  # "train", "val" -> name of the dataset, "" without a known one
    classes: Sequence[str]  # where the settings state them
    begun_from: str  # official weights, or ""
    notes: Mapping[str, str] = field(default_factory=dict)  # in the metadata of `.safetensors`


def read_run_folder(folder: Path, *, best: bool, ema: bool, verify: bool = False) -> Run:
    """Describe a run of any trainer; one without such weights, or with damaged ones, is refused.

    To `verify` reads all of an engine's last checkpoint.
    """
    if run_folders.is_engine_run(folder):
        return _engine_run(folder, best=best, ema=ema, verify=verify)
    weights = config = None
    describe: Callable[[Path, Path, Path], Run] = _detectron2_run
    if run_folders.is_mmengine_run(folder) and not ema:
        find = run_folders.best_of_mmengine if best else run_folders.last_of_mmengine
        weights, config, describe = find(folder), config_of_run(folder), _mmengine_run
    elif run_folders.is_detectron2_run(folder) and not (best or ema):
        weights, config = run_folders.last_of_detectron2(folder), folder / "config.yaml"
    if weights is None or config is None:
        raise ValueError(
            f"{folder} holds no such weights with the config of their run: name the output folder "
            "of a training, and --best and --ema only where it kept such weights"
        )
    run = describe(folder, weights, config)
    return replace(run, weights=run_folders.adapter_of(folder, best=best) or run.weights)


def _engine_run(folder: Path, *, best: bool, ema: bool, verify: bool) -> Run:
    from eva_engine.checkpoints.files import read_run  # not installed with a detector

    config = read_json(folder / run_folders.CONFIG)
    checkpoint, weights = _engine_weights(folder, config, best=best, ema=ema, verify=verify)
    record = read_run(checkpoint)
    if best:
        entry = run_folders.evaluation_of_best(folder, weights)
        step, scores = int(entry["step"]) + 1, _finite(entry["results"])
    else:
        step = record["step"]
        scores = _engine_scores(folder, step, ema=ema)
    epochs, batch = section(config, "run").get("epochs"), record.get("step_batch")
    samples = record.get("samples_of_data")
    model = section(config, "student" if "student" in config else "model")
    published = clean(config)
    return Run(
        task=task_of_engine(config),
        weights=weights,
        recipe=json.dumps(published, indent=2) + "\n",
        recipe_name="recipe.json",
        step=step,
        steps=samples // batch * epochs if samples and batch and epochs else None,
        scores=scores,
        data={
            use: data_name(str(location))
            for use, location in section(config, "data").items()
            if use in ("train", "val") and location
        },
        classes=published.get("class_names") or (),
        begun_from=official_name(model.get("init_checkpoint")),
        notes={"config": json.dumps(published)},
    )


def _engine_weights(
    folder: Path, config: Mapping[str, Any], *, best: bool, ema: bool, verify: bool
) -> tuple[Path, Path]:
    """Find the newest checkpoint of a run, and its weights or the best ones."""
    from eva_engine.checkpoints.files import find_damage

    complete = run_folders.complete_checkpoints(folder)
    problem = None if complete else "it has no complete checkpoint"
    if complete and verify:
        problem = find_damage(complete[-1])
    weights = run_folders.best_of_engine(folder, ema=ema) if best else None
    if best and weights is None:
        problem = "it has no such best weights: leave --best out"
    if "num_codes" in config:
        problem = "it is the run of a tokenizer, not of a ViT"
    if problem:
        raise ValueError(f"{folder} has no weights to show or publish: {problem}")
    return complete[-1], weights or run_folders.of_checkpoint(complete[-1], ema=ema)


def _engine_scores(folder: Path, step: int, *, ema: bool) -> dict[str, float]:
    """Read what the evaluation after a step has logged of the weights, or of their average."""
    prefix = "val_ema_" if ema else "val_"
    return {
        name.removeprefix(prefix): value
        for line in read_log(folder / "metrics.jsonl")
        if line["step"] == step - 1
        for name, value in _finite(line).items()
        if name.startswith(prefix) and (ema or not name.startswith("val_ema_"))
    }


def _detectron2_run(folder: Path, weights: Path, config: Path) -> Run:
    saved, published, content = read_yaml(config)
    settings = section(saved, "settings")
    steps = int(settings.get("train.max_iter", 0)) or None
    step = run_folders.step_of_detectron2(weights) or steps or 0
    names = {
        use: settings.get(f"dataloader.{part}.dataset.names")
        for use, part in (("train", "train"), ("val", "test"))
    }
    categories = section(published, "own_data", "categories")
    return Run(
        task="detection",
        weights=weights,
        recipe=content,
        recipe_name="config.yaml",
        step=step,
        steps=steps,
        scores={
            name: value
            for line in read_log(folder / "metrics.json", "iteration")
            if line["iteration"] == step
            for name, value in _finite(line).items()
            if re.match(r"(bbox|segm|boundary)/AP(?!-)", name)
        },
        data={
            use: data_name(str(some[0] if isinstance(some, list) and some else some))
            for use, some in names.items()
        },
        classes=[*filter(None, categories.values())],
        begun_from=official_name(settings.get("train.init_checkpoint")),
    )


def _mmengine_run(folder: Path, weights: Path, config: Path) -> Run:
    settings, published, content = read_python(config)
    number = re.search(r"_(\d+)\.pth$", weights.name)
    step, unit = int(number[1]) if number else 0, "epoch" if "epoch_" in weights.name else "step"
    scores = [line for line in read_scalars(folder) if line["step"] == step and "loss" not in line]
    classes = section(published, "val_dataloader", "dataset", "metainfo").get("classes")
    sets = {use: section(settings, f"{use}_dataloader", "dataset") for use in ("train", "val")}
    return Run(
        task=task_of_mmengine(settings),
        weights=weights,
        recipe=content,
        recipe_name="config.py",
        step=step,
        steps=section(settings, "train_cfg").get("max_epochs" if unit == "epoch" else "max_iters"),
        unit=unit,
        # pycocotools says -1 where there is nothing to score
        scores={
            name: value
            for line in scores[-1:]
            for name, value in _finite(line).items()
            if value >= 0 and not _NO_SCORES.fullmatch(name)
        },
        data={use: _mmengine_data(part) for use, part in sets.items() if part},
        classes=[*filter(None, classes or ())],
        begun_from=official_name(settings.get("load_from")),
    )


def _mmengine_data(dataset: Mapping[str, Any]) -> str:
    if dataset.get("metainfo"):  # classes of its own
        return ""
    coco = re.search(r"instances_(train|val)2017\.json$", str(dataset.get("ann_file")))
    return f"coco_2017_{coco[1]}" if coco else _MMSEG.get(str(dataset.get("type")), "")


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if type(value) in (int, float) and math.isfinite(value)
    }


def push(options: argparse.Namespace) -> None:
    """Publish a run, or write what would be published."""
    run = read_run_folder(options.run, best=options.best, ema=options.ema, verify=True)
    target = SCHEME + options.repository
    if options.dry_run is not None:
        written = [*FILES, *(file.name for file in options.include)]
        require_replaceable(options.dry_run, written, overwrite=options.overwrite)
        with replace_folder(options.dry_run) as folder:
            compose(run, options, folder)
        echo(f"wrote {options.dry_run}, which would be {target}; nothing was uploaded")
        return
    with tempfile.TemporaryDirectory(prefix="eva-push-") as name:
        compose(run, options, Path(name))
        message = f"{run.task}, {run.unit} {run.step}"
        commit = upload(Path(name), options.repository, private=options.private, message=message)
    echo(f"published {run.weights.name} ({run.unit} {run.step}) as {target}, commit {commit}")
    echo(f"weights by address: {target}@{commit}")


def compose(run: Run, options: argparse.Namespace, folder: Path) -> None:
    """Write all that is published into an empty folder."""
    weights, seen = read_weights(run.weights), set()
    for name, value in weights.items():
        pointer = value.untyped_storage().data_ptr()
        if pointer in seen:  # `.safetensors` holds no tensors that share their memory
            weights[name] = value.clone()
        seen.add(pointer)
    write_tensors(weights, folder / DEFAULT_FILE, {**run.notes, "format": "pt"})
    results = {run.unit: run.step, f"{run.unit}s": run.steps, "scores": dict(run.scores)}
    parameters = sum(value.numel() for value in weights.values())
    write_text(folder / "README.md", _card(run, options, parameters))
    write_text(folder / run.recipe_name, run.recipe)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    for file in options.include:
        shutil.copyfile(file, folder / file.name)


def _card(run: Run, options: argparse.Namespace, parameters: int) -> str:
    official = any(run.begun_from in (entry.name, entry.stem) for entry in OFFICIAL_FILES)
    packages = (TOOLKIT, "torch", *_PACKAGES.get(run.task, ("timm", "deepspeed")))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eva_command", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        run=run,
        repository=options.repository,
        licence=options.licence,
        millions=parameters / 1e6,
        base=REPOSITORY if official else "",
        versions=[f"{name} {version}" for name in packages if (version := installed_version(name))],
        detectron2=DETECTRON2,
        toolkit=TOOLKIT,
    )


def upload(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Upload a folder in one commit, which removes files of an earlier push; return the commit."""
    reason = offline()
    if reason:
        raise HubError(f"the hub is switched off ({reason})")
    api = import_hub().HfApi(library_name=TOOLKIT)
    with explain_hub_errors(HubFile(repository)):
        api.whoami()  # a clear message of the library without a token, or with a wrong one
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ValueError(f"{repository} is there and public: make it private on the hub first")
        try:
            done = api.upload_folder(
                folder_path=str(folder),
                repo_id=repository,
                commit_message=message,
                delete_patterns=list(FILES),
            )
        except RuntimeError as error:  # around what broke off, of each large file
            lines = str(error.__cause__ or error).splitlines()
            raise HubError(f"the upload broke off, nothing was published ({lines[0]})") from error
    return str(done.oid)
