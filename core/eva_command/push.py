"""Publish a run on the Hugging Face hub: weights, model card, settings and scores.

    eva push output/coco someone/eva-coco --dry-run output/card   # look at it first
    eva push output/coco someone/eva-coco --private

RUN is the output folder of any training of this toolkit. The last weights are published, unless
--best is given. Published are `model.safetensors`, without states of the optimizer; `README.md`,
the model card; the settings of the run; `results.json`. Of the settings only numbers, names of
classes, parts and known datasets are published; paths, addresses and free text are left out. Needs
`pip install eva-toolkit[hub]` and a token of the hub (`hf auth login`, or HF_TOKEN).
"""

import argparse
import ast
import json
import math
import pprint
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from eva_backbone.checkpoints import run_folders
from eva_backbone.checkpoints.hub import (
    DEFAULT_FILE,
    SCHEME,
    HubError,
    HubFile,
    explained,
    library,
    offline,
    parse_address,
)
from eva_backbone.checkpoints.registry import BUNDLED_FILES, OFFICIAL_FILES
from eva_data.files import replacing_folder, require_replaceable, write_tensors, write_text
from eva_runs.commands import program, program_name, say
from eva_runs.extras import DETECTRON2, TOOLKIT
from eva_runs.record import without_secrets

CARD, RESULTS = "README.md", "results.json"
FILES = (DEFAULT_FILE, CARD, RESULTS, "recipe.json", "config.yaml", "config.py")
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
_CLASSES = frozenset({"classes", "class_names", "categories", "thing_classes"})
_PLACE = re.compile(
    r"checkpoint|pretrained|weights|path|file|folder|root|dir(_|$)|prefix|mapping|url|token$|secret|"
    r"key$|name$|project|output|_from$"
)
_FILE = re.compile(r"\.(pth?|pkl|safetensors|json|ya?ml|csv|tsv|txt|tar|zip|py|jpe?g|png)$")
_KEY = re.compile(r"(?!data_prefix$)[\w.+-]*")  # mmengine takes no prefix of None
_WORD = re.compile(r"[A-Za-z_][\w.+-]*")
_REFERENCE = re.compile(r"\$\{\.*[\w.\[\]]+\}")  # of OmegaConf, to another value
_TAG = re.compile(r"tag:yaml\.org,2002:python/(tuple|(name|object|object/apply):[A-Za-z_][\w.]*)")
_OFFICIAL = frozenset(
    [name for one in OFFICIAL_FILES for name in (one.name, one.stem)]
    + [one.name for one in BUNDLED_FILES]
)
_DATASET = re.compile(
    r"(coco_20\d\d|coco_stuff|lvis_v\d|objects365|cityscapes|voc_20\d\d|ade20k|digit_scenes)"
    r"[a-z0-9_]*"
)
_MMSEG = {"ADE20KDataset": "ade20k", "COCOStuffDataset": "coco_stuff164k"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is published of a finished or stopped run.

    Attributes:
        task: Name of its project.
        weights: File of the weights.
        recipe_name, recipe: Name and text of the published settings.
        step, steps: Steps, or epochs, behind the weights, and of the complete run if that is known.
        unit: What they count: `step` or `epoch`.
        scores: Name of a metric -> value, of these weights.
        data: Use (`train`, `val`) -> name of the dataset; "" for data without a known name.
        classes: Names of the classes, where the settings state them.
        own_data: The data was given on the command line, in COCO format.
        begun_from: Official weights that the run began with; "" for others.
        hours, processes: Of the training, as far as they are recorded.
        notes: Texts that the published `.safetensors` holds beside the tensors.
    """

    task: str
    weights: Path
    recipe_name: str
    recipe: str
    step: int
    steps: int | None = None
    unit: str = "step"
    scores: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    own_data: bool = False
    begun_from: str = ""
    hours: float | None = None
    processes: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog=program_name("eva push"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="output folder of a training")
    add("repository", metavar="ORG/NAME", help="repository on the hub; made if it is not there")
    add("--private", action="store_true", help="make the repository private")
    add("--dry-run", type=Path, metavar="DIR", help="write everything there and upload nothing")
    add("--overwrite", action="store_true", help="replace an earlier DIR")
    add("--best", action="store_true", help="weights of the best evaluation, not the last ones")
    add("--ema", action="store_true", help="the moving average of the weights")
    add("--include", type=Path, metavar="FILE", action="append", default=[],
        help="publish this file too, as it is")  # fmt: skip
    add("--licence", default="mit", help="licence of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        plain = parse_address(SCHEME + options.repository) == HubFile(options.repository)
    except ValueError:
        plain = False
    if not plain:
        parser.error(f"{options.repository!r} is not of the form ORG/NAME")
    if taken := [file for file in options.include if file.name in FILES or not file.is_file()]:
        parser.error(f"--include {taken[0]}: there is no such file, or push writes one of its name")
    return options


def _push(options: argparse.Namespace) -> int:
    run = read_run_folder(options.run, best=options.best, ema=options.ema)
    target = SCHEME + options.repository
    if options.dry_run is not None:
        written = [*FILES, *(file.name for file in options.include)]
        require_replaceable(options.dry_run, written, overwrite=options.overwrite)
        with replacing_folder(options.dry_run) as folder:
            compose(run, options.repository, folder, options.include, licence=options.licence)
        say(f"wrote {options.dry_run}, which would be {target}; nothing was uploaded")
        return 0
    with tempfile.TemporaryDirectory(prefix="eva-push-") as name:
        compose(run, options.repository, Path(name), options.include, licence=options.licence)
        message = f"{run.task}, {run.unit} {run.step}"
        commit = upload(Path(name), options.repository, private=options.private, message=message)
    say(f"published {run.weights.name} ({run.unit} {run.step}) as {target}, commit {commit}")
    say(f"weights by address: {target}@{commit}")
    return 0


def read_run_folder(folder: Path, *, best: bool = False, ema: bool = False) -> Run:
    """Describe a run of any trainer.

    Args:
        folder: Its output folder.
        best: Take the weights of the best evaluation.
        ema: Take the moving average.

    Returns:
        The run.

    Raises:
        ValueError: If the folder is not that of a run with a complete and undamaged checkpoint, or
            it has no such weights.
        FileNotFoundError: If it has no moving average.
    """
    if run_folders.is_engine_run(folder):
        return _engine_run(folder, best=best, ema=ema)
    if ema:
        raise ValueError(f"{folder} is not a run with a moving average: leave --ema out")
    if run_folders.is_mmengine_run(folder):
        return _mmengine_run(folder, best=best)
    if best:
        raise ValueError(f"{folder} is not a run that keeps its best weights: leave --best out")
    weights = run_folders.last_of_detectron2(folder)
    if weights is None or not run_folders.is_detectron2_run(folder):
        raise ValueError(f"{folder} holds no complete checkpoint of a run: name its output folder")
    return _detectron2_run(folder, weights)


def _engine_run(folder: Path, *, best: bool, ema: bool) -> Run:
    from eva_engine.checkpoints.files import damage_of, read_run

    config = _table(folder / run_folders.CONFIG)
    complete = run_folders.complete_checkpoints(folder)
    damage = damage_of(complete[-1]) if complete else "there is none"
    if damage:
        raise ValueError(f"{folder} has no complete and undamaged checkpoint ({damage})")
    if "num_codes" in config:
        raise ValueError(f"{folder} is the run of a tokenizer: only a ViT is published")
    record = read_run(complete[-1])
    log = list(_lines(folder / "metrics.jsonl"))
    if best:
        file = run_folders.best_of_engine(folder, ema=ema)
        if file is None:
            raise ValueError(f"{folder} has no such best weights: leave --best out")
        noted = _table(folder / run_folders.BEST / run_folders.RECORD)[file.name]
        step, scores = int(noted["step"]) + 1, _finite(noted.get("results", {}))
    else:
        file = run_folders.of_checkpoint(complete[-1], ema=ema)
        step, scores = record["step"], _engine_scores(log, record["step"] - 1, ema=ema)
    model = config.get("model") or config.get("student") or {}
    data, epochs = config.get("data", {}), config.get("run", {}).get("epochs")
    samples, batch = record.get("samples_of_data") or 0, record.get("step_batch") or 0
    counted = isinstance(epochs, int) and samples and batch
    published = clean(config)
    times = [
        (line["samples"], 1 / line["samples_per_second"])
        for line in log
        if line.get("samples") and line.get("samples_per_second")
    ]
    video = "frames" in config.get("model", {})
    tasks = {"student": "pretrain", "text": "clip"}
    return Run(
        task=next((task for key, task in tasks.items() if key in config),
                  "video" if video else "classification"),
        weights=file,
        recipe=json.dumps(published, indent=2) + "\n",
        recipe_name="recipe.json",
        step=step,
        steps=samples // batch * epochs if counted else None,
        scores=scores,
        data={use: data_name(str(data[use])) for use in ("train", "val") if data.get(use)},
        classes=published.get("class_names") or (),
        begun_from=_official(model.get("init_checkpoint")),
        hours=_hours(times),
        processes=record.get("processes"),
        notes={"config": json.dumps(published)},
    )  # fmt: skip


def _engine_scores(log: Iterable[Mapping[str, Any]], step: int, *, ema: bool) -> dict[str, float]:
    start, scores = "val_ema_" if ema else "val_", {}
    for line in log:
        for name, value in _finite(line).items() if line.get("step") == step else ():
            if name.startswith(start) and (ema or not name.startswith("val_ema_")):
                scores[name.removeprefix(start)] = value
    return scores


def _detectron2_run(folder: Path, weights: Path) -> Run:
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    settings = _read_yaml(text)
    train, loaders = _section(settings, "train"), _section(settings, "dataloader")
    log = list(_lines(folder / "metrics.json"))
    steps = train.get("max_iter")
    step = run_folders.step_of_detectron2(weights) or steps or 0
    scores = [_finite(line) for line in log if line.get("iteration") == step]
    sets = {use: _section(loaders, part, "dataset")
            for use, part in (("train", "train"), ("val", "test"))}  # fmt: skip
    categories = clean(_section(sets["val"], "categories"), ("categories",))
    return Run(
        task="detection",
        weights=weights,
        recipe=_clean_yaml(text),
        recipe_name="config.yaml",
        step=step,
        steps=steps,
        scores={name: value for line in scores for name, value in line.items()
                if re.match(r"(bbox|segm|boundary)/AP(?!-)", name)},
        data={use: data_name(_first(part.get("names"))) for use, part in sets.items()},
        classes=list(filter(None, categories.values())),
        own_data=any("annotations" in part for part in sets.values()),
        begun_from=_official(train.get("init_checkpoint")),
        hours=_hours(_times(log, "iteration")),
    )  # fmt: skip


def _mmengine_run(folder: Path, *, best: bool) -> Run:
    finders = run_folders.best_of_mmengine, run_folders.last_of_mmengine
    weights = finders[not best](folder)
    if weights is None:
        raise ValueError(f"{folder} has no best_*.pth: leave --best out")
    settings = _mmengine_settings(folder)
    number = re.search(r"_(\d+)\.pth$", weights.name)
    step, unit = int(number[1]) if number else 0, "epoch" if "epoch_" in weights.name else "step"
    log = [line for file in sorted(folder.glob("*/vis_data/scalars.json")) for line in _lines(file)]
    evaluations = [line for line in log if line.get("step") == step and "loss" not in line]
    sets = {use: _section(settings, f"{use}_dataloader", "dataset") for use in ("train", "val")}
    classes = clean(_section(sets["val"], "metainfo").get("classes"), ("classes",))
    dropped = ("step", "time", "data_time", "iter", "epoch", "memory")
    published = clean(settings)
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
        scores={name: value for line in evaluations[-1:] for name, value in _finite(line).items()
                if name not in dropped and value >= 0},
        data={use: _mmengine_data(part) for use, part in sets.items() if part},
        classes=list(filter(None, classes if isinstance(classes, list | tuple) else ())),
        own_data="CocoFileDataset" in str(settings),
        begun_from=_official(settings.get("load_from")),
        hours=_hours(_times(log, "step")),
    )  # fmt: skip


def _mmengine_settings(folder: Path) -> dict[str, Any]:
    """Read the newest Python file of a folder that assigns a model; nothing in it runs."""
    for file in sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            module = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        settings = {
            line.targets[0].id: _literal(line.value)
            for line in module.body
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
        }
        if "model" in settings:
            return settings
    raise ValueError(f"{folder} holds no config of its run (*.py): is it a work folder?")


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal, in which `dict(name=value)` may stand; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(name): _literal(value) for name, value in pairs if name is not None}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(value) for value in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def _read_yaml(text: str) -> dict[str, Any]:
    """Read settings of detectron2; tags of Python, as of functions, become None."""
    import yaml  # comes with huggingface_hub

    reader: Any = type("Reader", (yaml.SafeLoader,), {})
    reader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: None)
    try:
        settings = yaml.load(text, reader)
    except yaml.YAMLError as error:
        raise ValueError(f"config.yaml of the run is damaged: {error}") from error
    return settings if isinstance(settings, dict) else {}


def _clean_yaml(text: str) -> str:
    """Apply `clean` to YAML without constructing what its tags name."""
    import yaml

    def cleaned(node: Any, keys: tuple[str, ...]) -> Any:
        if id(node) in seen:
            return
        seen.add(id(node))
        of_python = node.tag.startswith("tag:yaml.org,2002:python/")
        if isinstance(node, yaml.MappingNode):
            node.value = [pair for pair in node.value if _is_key(pair[0].value)]
            for name, value in node.value:
                cleaned(value, (*keys, name.value))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                cleaned(value, (*keys, ""))
        elif (of_python and node.value) or (
            not of_python
            and node.tag.rpartition(":")[2] not in ("int", "float", "bool", "null")
            and not is_public(node.value, keys)
        ):
            node.tag, node.value, node.style = "tag:yaml.org,2002:null", "null", None
        if of_python and not _TAG.fullmatch(node.tag):
            raise ValueError(f"config.yaml of the run has the tag {node.tag!r}")

    seen: set[int] = set()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    cleaned(root, ())
    return str(yaml.serialize(root, width=100, allow_unicode=True))


def clean(value: Any, keys: tuple[str, ...] = ()) -> Any:
    """Keep of settings what may be published.

    Args:
        value: Settings, or a part of them.
        keys: Keys that lead to the part; "" for the place in a list.

    Returns:
        The same with None for each text that is not public, see `is_public`, and without entries
        under odd keys.
    """
    if isinstance(value, Mapping):
        return {name: clean(part, (*keys, str(name)))
                for name, part in value.items() if _is_key(name)}  # fmt: skip
    if isinstance(value, list | tuple):
        return type(value)(clean(part, (*keys, "")) for part in value)
    if isinstance(value, str):
        return value if is_public(value, keys) else None
    return value if isinstance(value, int | float) else None


def is_public(text: str, keys: Sequence[str]) -> bool:
    """Return whether a text of settings is a name that everyone may know.

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


def _is_key(name: object) -> bool:
    return bool(_KEY.fullmatch(str(name)))


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
    own = re.search(r"instances_(train|val)2017\.json$", str(dataset.get("ann_file")))
    if dataset.get("metainfo"):  # classes of its own
        return ""
    return f"coco_2017_{own[1]}" if own else _MMSEG.get(str(dataset.get("type")), "")


def _official(source: object) -> str:
    return str(source) if source in _OFFICIAL else ""


def _first(names: Any) -> str:
    return str(names[0] if isinstance(names, list) and names else names)


def _section(settings: Any, *names: str) -> dict[str, Any]:
    for name in names:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings if isinstance(settings, dict) else {}


def _table(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a table of settings")
    return content


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Read a log of JSON lines; lines that are cut off are left out."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _times(log: Iterable[Mapping[str, Any]], counter: str) -> list[tuple[int, float]]:
    lines = (line for line in log if "loss" in str(line.keys()))
    return [(line[counter], line["time"]) for line in lines if line.get("time") and counter in line]


def _hours(times: Iterable[tuple[int, float]]) -> float | None:
    """Sum up the time of a log: (count, seconds of each) -> hours."""
    seconds, before = 0.0, 0
    for count, each in times:
        seconds += max(count - before, 0) * each
        before = max(count, before)
    return seconds / 3600 if seconds else None


def compose(
    run: Run, repository: str, folder: Path, include: Sequence[Path] = (), *, licence: str
) -> None:
    """Write all that is published into a folder.

    Args:
        run: The run.
        repository: `ORG/NAME`, for the model card.
        folder: An empty folder.
        include: Further files, copied as they are.
        licence: Identifier of the licence of the weights.

    Raises:
        ValueError: If the weights are damaged.
        UnwritableError: If the disk is full, for example.
    """
    from eva_backbone.checkpoints.reading import read_weights

    weights, seen = read_weights(run.weights), set()
    for name, value in weights.items():
        place = value.untyped_storage().data_ptr()
        if place in seen:  # `.safetensors` holds no tensors that share their memory
            weights[name] = value.clone()
        seen.add(place)
    write_tensors(weights, folder / DEFAULT_FILE, {**run.notes, "format": "pt"})
    parameters = sum(value.numel() for value in weights.values())
    results = {run.unit: run.step, f"{run.unit}s": run.steps, "scores": dict(run.scores)}
    write_text(folder / CARD, _card(run, repository, licence, parameters))
    write_text(folder / run.recipe_name, run.recipe)
    write_text(folder / RESULTS, json.dumps(results, indent=2) + "\n")
    for file in include:
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
        base=official[0].source if official else "",
        versions=[f"{name} {version}" for name in packages if (version := _version(name))],
        detectron2=DETECTRON2,
        toolkit=TOOLKIT,
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def upload(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Upload a folder; the repository is made if it is not there.

    Args:
        folder: The folder; all of its files are uploaded. Those of an earlier push that it does not
            have are removed.
        repository: `ORG/NAME`.
        private: Make the repository private.
        message: First line of the commit.

    Returns:
        The commit.

    Raises:
        HubError: Without a token that may write there, or without the hub.
        ValueError: If `private` is asked for and the repository is there and public.
    """
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


main = program(parse, _push, name="eva push", interrupted="nothing was published")
