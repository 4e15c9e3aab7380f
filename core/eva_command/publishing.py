"""What `eva push` publishes of a run of any trainer: weights, model card, settings, scores."""

import argparse
import ast
import contextlib
import json
import math
import pprint
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from eva_backbone.checkpoints import run_folders
from eva_backbone.checkpoints.hub import (
    DEFAULT_FILE,
    HubError,
    HubFile,
    explained,
    library,
    offline,
)
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import BUNDLED_FILES, OFFICIAL_FILES, REPOSITORY
from eva_command.doctor import installed_version
from eva_command.push import FILES
from eva_data.files import write_tensors, write_text
from eva_openmmlab.run_folder import config_of_run, read_scalars
from eva_runs.extras import DETECTRON2, TOOLKIT
from eva_runs.record import without_secrets

_PACKAGES = {  # that train, beside torch
    "detection": ("detectron2",),
    "segmentation": ("onedl-mmengine", "onedl-mmsegmentation"),
    "mmdetection": ("onedl-mmengine", "onedl-mmdetection"),
}

# What is published of settings. Single words only below these keys, as names of parts and modes:
_SECTIONS = re.compile(
    r"model|student|teacher|text|tta_model|optimizer|lr_multiplier|optim_wrapper|param_scheduler|"
    r"augment|mask|mapper|transforms|sampler|(train|val|test)_cfg|default_hooks|env_cfg|"
    r"custom_imports|(\w+_)?(pipeline|evaluator)"
)
# or as the value of these, wherever they stand:
_MODES = re.compile(
    r"type|_target_|_scope_|default_scope|runner_type|log_level|sampling|device|precision"
)
# but no names of files, and nothing under keys that name places:
_FILE = re.compile(r"\.(pth?|pkl|safetensors|json|ya?ml|csv|tsv|txt|tar|zip|py|jpe?g|png)$")
_PLACE = re.compile(
    r"checkpoint|pretrained|weights|path|file|folder|root|dir(_|$)|prefix|mapping|url|token$|secret|"
    r"key$|name$|project|output|_from$"
)
_CLASSES = ("classes", "class_names", "categories", "thing_classes")
_KEY = re.compile(r"(?!data_prefix$)[\w.+-]*")  # mmengine takes no prefix of None
_WORD = re.compile(r"[A-Za-z_][\w.+-]*")
_REFERENCE = re.compile(r"\$\{\.*[\w.\[\]]+\}")  # of OmegaConf, to another value
_PYTHON = "tag:yaml.org,2002:python/"
_OFFICIAL = {name for one in OFFICIAL_FILES for name in (one.name, one.stem)}
_OFFICIAL |= BUNDLED_FILES.keys()
_DATASET = re.compile(
    r"(coco_20\d\d|coco_stuff|lvis_v\d|objects365|cityscapes|voc_20\d\d|ade20k|digit_scenes)"
    r"[a-z0-9_]*"
)
_MMSEG = {"ADE20KDataset": "ade20k", "COCOStuffDataset": "coco_stuff164k"}


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


def read_run_folder(folder: Path, *, best: bool, ema: bool) -> Run:
    """Describe a run of any trainer; one that has no such weights is refused."""
    if run_folders.is_engine_run(folder):
        return _engine_run(folder, best=best, ema=ema)
    of_mmengine = run_folders.is_mmengine_run(folder)
    if ema or (best and not of_mmengine):
        raise ValueError(f"{folder} has no such weights: leave --best and --ema out")
    if of_mmengine:
        return _mmengine_run(folder, best=best)
    weights = run_folders.last_of_detectron2(folder)
    if weights is None or not run_folders.is_detectron2_run(folder):
        raise ValueError(f"{folder} holds no complete checkpoint of a run: name its output folder")
    return _detectron2_run(folder, weights)


def _engine_run(folder: Path, *, best: bool, ema: bool) -> Run:
    from eva_engine.checkpoints.files import damage_of, read_run  # not installed with a detector
    from eva_engine.run_log import lines_of

    config = _table(folder / run_folders.CONFIG)
    complete = run_folders.complete_checkpoints(folder)
    damage = damage_of(complete[-1]) if complete else "there is none"
    if damage:
        raise ValueError(f"{folder} has no complete and undamaged checkpoint ({damage})")
    if "num_codes" in config:
        raise ValueError(f"{folder} is the run of a tokenizer: only a ViT is published")
    record = read_run(complete[-1])
    log = lines_of(folder / "metrics.jsonl")
    file = run_folders.of_checkpoint(complete[-1], ema=ema and not best)
    step, scores = record["step"], _engine_scores(log, record["step"] - 1, ema=ema)
    if best:
        kept = run_folders.best_of_engine(folder, ema=ema)
        if kept is None:
            raise ValueError(f"{folder} has no such best weights: leave --best out")
        noted = _table(folder / run_folders.BEST / run_folders.RECORD)[kept.name]
        file, step, scores = kept, int(noted["step"]) + 1, _finite(noted.get("results", {}))
    epochs, batch = _section(config, "run").get("epochs"), record.get("step_batch")
    samples = record.get("samples_of_data")
    model = _section(config, "student" if "student" in config else "model")
    task = "video" if "frames" in model else "classification"
    task = "pretrain" if "student" in config else "clip" if "text" in config else task
    published = clean(config)
    return Run(
        task=task,
        weights=file,
        recipe=json.dumps(published, indent=2) + "\n",
        recipe_name="recipe.json",
        step=step,
        steps=samples // batch * epochs if samples and batch and epochs else None,
        scores=scores,
        data={use: data_name(str(place)) for use, place in _section(config, "data").items()
              if use in ("train", "val") and place},
        classes=published.get("class_names") or (),
        begun_from=_official(model.get("init_checkpoint")),
        notes={"config": json.dumps(published)},
    )  # fmt: skip


def _engine_scores(log: Iterable[Mapping[str, Any]], step: int, *, ema: bool) -> dict[str, float]:
    wanted = re.compile("val_ema_(.*)" if ema else "val_(?!ema_)(.*)")
    values = [_finite(line) for line in log if line.get("step") == step]
    found = ((wanted.fullmatch(name), score) for line in values for name, score in line.items())
    return {name[1]: score for name, score in found if name}


def _detectron2_run(folder: Path, weights: Path) -> Run:
    settings = _read_yaml(folder / "config.yaml")
    published = clean(settings)
    train = _section(settings, "train")
    steps = train.get("max_iter")
    step = run_folders.step_of_detectron2(weights) or steps or 0
    log = _lines(folder / "metrics.json")
    scores = [_finite(line) for line in log if line.get("iteration") == step]
    names = {use: _section(settings, "dataloader", part, "dataset").get("names")
             for use, part in (("train", "train"), ("val", "test"))}  # fmt: skip
    categories = _section(published, "dataloader", "test", "dataset", "categories")
    return Run(
        task="detection",
        weights=weights,
        recipe=_yaml_text(published),
        recipe_name="config.yaml",
        step=step,
        steps=steps,
        scores={name: value for line in scores for name, value in line.items()
                if re.match(r"(bbox|segm|boundary)/AP(?!-)", name)},
        data={use: data_name(str(some[0] if isinstance(some, list) and some else some))
              for use, some in names.items()},
        classes=[*filter(None, categories.values())],
        begun_from=_official(train.get("init_checkpoint")),
    )  # fmt: skip


def _mmengine_run(folder: Path, *, best: bool) -> Run:
    weights = run_folders.best_of_mmengine(folder) if best else run_folders.last_of_mmengine(folder)
    config = config_of_run(folder)
    if weights is None or config is None:
        lacks = "weights of a best evaluation" if weights is None else "config that its run names"
        raise ValueError(f"{folder} has no {lacks}")
    settings = _read_python(config)
    published = clean(settings)
    number = re.search(r"_(\d+)\.pth$", weights.name)
    step, unit = int(number[1]) if number else 0, "epoch" if "epoch_" in weights.name else "step"
    scores = [one for one in read_scalars(folder) if one["step"] == step and "loss" not in one]
    sets = {use: _section(settings, f"{use}_dataloader", "dataset") for use in ("train", "val")}
    classes = _section(published, "val_dataloader", "dataset", "metainfo").get("classes")
    texts = (f"{name} = {pprint.pformat(value, width=100, sort_dicts=False)}\n"
             for name, value in published.items())  # fmt: skip
    return Run(
        task="mmdetection" if "eva_mmdetection" in str(settings) else "segmentation",
        weights=weights,
        recipe="".join(texts),
        recipe_name="config.py",
        step=step,
        steps=_section(settings, "train_cfg").get("max_epochs" if unit == "epoch" else "max_iters"),
        unit=unit,
        # pycocotools says -1 where there is nothing to score
        scores={name: value for line in scores[-1:] for name, value in _finite(line).items()
                if value >= 0 and not re.fullmatch("step|iter|epoch|memory|(data_)?time", name)},
        data={use: _mmengine_data(part) for use, part in sets.items() if part},
        classes=[*filter(None, classes or ())],
        begun_from=_official(settings.get("load_from")),
    )  # fmt: skip


def _read_python(file: Path) -> dict[str, Any]:
    """Read the settings of a config of mmengine; nothing in it runs."""
    with _reading(file):
        module = ast.parse(file.read_text(encoding="utf-8"))
    return {
        line.targets[0].id: _literal(line.value)
        for line in module.body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal, in which `dict(name=value)` may stand; None for anything else."""
    match node:
        case ast.Call(func=ast.Name(id="dict"), keywords=words):
            return {word.arg: _literal(word.value) for word in words if word.arg}
        case ast.Dict(keys=names, values=values):
            pairs = zip(names, values, strict=True)
            return {_literal(name): _literal(value) for name, value in pairs if name is not None}
        case ast.List(elts=values):
            return [_literal(value) for value in values]
        case ast.Tuple(elts=values):
            return tuple(_literal(value) for value in values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


class _Tagged(NamedTuple):
    """A value of YAML behind a tag of Python, such as the name of a function; nothing is called."""

    tag: str
    value: Any


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read the settings of a run of detectron2."""

    def tagged(loader: Any, tag: str, node: Any) -> _Tagged:
        kind = {"mapping": "map", "sequence": "seq", "scalar": "str"}[node.id]
        plain = type(node)(f"tag:yaml.org,2002:{kind}", node.value)
        return _Tagged(_PYTHON + tag, loader.construct_object(plain, deep=True))

    reader: Any = type("Reader", (yaml.SafeLoader,), {})
    reader.add_multi_constructor(_PYTHON, tagged)
    with _reading(file):
        settings = yaml.load(file.read_text(encoding="utf-8"), reader)
    return settings if isinstance(settings, dict) else {}


def _yaml_text(settings: Mapping[str, Any]) -> str:
    def represent(dumper: Any, one: _Tagged) -> Any:
        node = dumper.represent_data(one.value)
        node.tag = one.tag
        return node

    writer: Any = type("Writer", (yaml.SafeDumper,), {})
    writer.add_representer(_Tagged, represent)
    return str(yaml.dump(settings, None, writer, width=100, allow_unicode=True, sort_keys=False))


def clean(value: Any, keys: tuple[str, ...] = ()) -> Any:
    """Keep of settings what may be published.

    Args:
        value: Settings, or a part of them.
        keys: Keys that lead to the part; "" for the place in a list.

    Returns:
        The same with None for each text that is not a name that everyone may know, and without
        entries under odd keys.
    """
    if isinstance(value, _Tagged):
        if isinstance(value.value, str):
            return None if value.value else value
        return value._replace(value=clean(value.value, keys))
    if isinstance(value, Mapping):
        return {name: clean(part, (*keys, str(name)))
                for name, part in value.items() if _KEY.fullmatch(str(name))}  # fmt: skip
    if isinstance(value, list | tuple):
        return type(value)(clean(part, (*keys, "")) for part in value)
    if isinstance(value, str):
        return value if _is_public(value, keys) else None
    return value if isinstance(value, int | float) else None


def _is_public(text: str, keys: Sequence[str]) -> bool:
    """Whether a text of settings is a name that everyone may know.

    Official weights, registered datasets and references to other settings are; names of classes
    in a list or table of classes; single words in settings of models, optimizers and pipelines.
    """
    if text in _OFFICIAL or _DATASET.fullmatch(text) or _REFERENCE.fullmatch(text):
        return True
    if without_secrets(text) != text:
        return False
    if len(keys) > 1 and keys[-2] in _CLASSES:
        return not re.match(r"[~/\\.]|\w+:", text) and len(text) <= 100
    own = next((key for key in reversed(keys) if key), "")
    if not _WORD.fullmatch(text) or _FILE.search(text) or _PLACE.search(own):
        return False
    return bool(_MODES.fullmatch(own)) or any(map(_SECTIONS.fullmatch, keys))


def data_name(place: str) -> str:
    """Name a dataset that everyone knows.

    Args:
        place: Path or name of the data, as the settings of a run have it.

    Returns:
        The name of a registered dataset or one of torchvision; "" for any other.
    """
    found = re.fullmatch(r"torchvision:(?!ImageFolder|DatasetFolder|FakeData)(\w+)(:.*)?", place)
    return place if _DATASET.fullmatch(place) else found[1] if found else ""


def _mmengine_data(dataset: Mapping[str, Any]) -> str:
    if dataset.get("metainfo"):  # classes of its own
        return ""
    coco = re.search(r"instances_(train|val)2017\.json$", str(dataset.get("ann_file")))
    return f"coco_2017_{coco[1]}" if coco else _MMSEG.get(str(dataset.get("type")), "")


def _official(source: object) -> str:
    return str(source) if source in _OFFICIAL else ""


def _section(settings: Any, *names: str) -> dict[Any, Any]:
    for name in names:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings if isinstance(settings, dict) else {}


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (SyntaxError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _table(file: Path) -> dict[str, Any]:
    with _reading(file):
        return {**json.loads(file.read_text(encoding="utf-8"))}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Read a log of JSON lines; lines that are cut off are left out."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines():
        with contextlib.suppress(TypeError, ValueError):
            yield {**json.loads(line)}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()
            if type(value) in (int, float) and math.isfinite(value)}  # fmt: skip


def compose(run: Run, options: argparse.Namespace, folder: Path) -> None:
    """Write all that is published into an empty folder."""
    weights, seen = read_weights(run.weights), set()
    for name, value in weights.items():
        place = value.untyped_storage().data_ptr()
        if place in seen:  # `.safetensors` holds no tensors that share their memory
            weights[name] = value.clone()
        seen.add(place)
    write_tensors(weights, folder / DEFAULT_FILE, {**run.notes, "format": "pt"})
    parameters = sum(value.numel() for value in weights.values())
    results = {run.unit: run.step, f"{run.unit}s": run.steps, "scores": dict(run.scores)}
    write_text(folder / "README.md", _card(run, options.repository, options.licence, parameters))
    write_text(folder / run.recipe_name, run.recipe)
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    for file in options.include:
        shutil.copyfile(file, folder / file.name)


def _card(run: Run, repository: str, licence: str, parameters: int) -> str:
    official = [one for one in OFFICIAL_FILES if run.begun_from in (one.name, one.stem)]
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
        repository=repository,
        licence=licence,
        millions=parameters / 1e6,
        base=REPOSITORY if official else "",
        versions=[f"{name} {found}" for name in packages if (found := installed_version(name))],
        detectron2=DETECTRON2,
        toolkit=TOOLKIT,
    )


def upload(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Upload a folder in one commit, which removes files of an earlier push; return the commit."""
    if reason := offline():
        raise HubError(f"the hub is switched off ({reason})")
    api = library().HfApi(library_name=TOOLKIT)
    with explained(HubFile(repository)):
        api.whoami()  # a clear message of the library without a token, or with a wrong one
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ValueError(f"{repository} is there and public: make it private on the hub first")
        try:
            done = api.upload_folder(
                folder_path=str(folder),
                repo_id=repository,
                commit_message=message,
                allow_patterns=[file.name for file in folder.iterdir()],
                delete_patterns=list(FILES),
            )
        except RuntimeError as error:  # around what broke off, of each large file
            lines = str(error.__cause__ or error).splitlines()
            raise HubError(f"the upload broke off, nothing was published ({lines[0]})") from error
    return str(done.oid)
