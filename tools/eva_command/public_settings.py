"""Settings of a run: read without running anything in them, and reduced to an allow-list.

Published are numbers, booleans, names of classes, official weights, known datasets, and single
words under the keys in `_PUBLIC_KEYS`. Every other text becomes None.
"""

import ast
import contextlib
import json
import pprint
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from eva_backbone.checkpoints.registry import BUNDLED_FILES, OFFICIAL_FILES

Settings = dict[str, Any]

# Keys under which the trainers name parts and modes, and nothing of a user's.
_PUBLIC_KEYS = re.compile(
    r"_scope_|_target_|act|activation|auto_augment|backend|box_in_features|collate_fn|"
    r"color_type|constructor|conv_norm|crop|crop_type|default_scope|device|direction|"
    r"dtype|image_format|imdecode_backend|imports|in_features|input_format|"
    r"instance_mask_format|interpolation|iou_metrics|jitter_each|library|log_level|"
    r"loss_scale|mask_in_features|matmul_precision|meta_keys|method|metric|mode|model|"
    r"mp_start_method|norm|padding_mode|pairing|pooler_type|pooling|precision|qkv_bias|"
    r"reduction|rel_pos|rule|runner_type|sampling|save_best|text|trunk_precision|type|"
    r"variant"
)
_CLASS_LISTS = ("classes", "class_names", "categories", "thing_classes")
_KEY = re.compile(r"(?!data_prefix$)[\w.+-]*")  # mmengine takes no prefix of None
_RECIPE = re.compile(r"\w+(/\w+)*")  # of the toolkit; one of a user's own is a path
_WORD = re.compile(r"[A-Za-z_][\w.+-]*")
_REFERENCE = re.compile(r"\$\{\.*[\w.\[\]]+\}")  # of OmegaConf, to another value
_OFFICIAL = {name for entry in OFFICIAL_FILES for name in (entry.name, entry.stem)}
_OFFICIAL |= BUNDLED_FILES.keys()
_DATASET = re.compile(
    r"(coco_20\d\d|coco_stuff|lvis_v\d|objects365|cityscapes|voc_20\d\d|ade20k|digit_scenes)"
    r"[a-z0-9_]*"
)


def clean(value: Any, keys: tuple[str, ...] = ()) -> Any:
    """Keep of settings what may be published.

    Args:
        value: Settings, or a part of them.
        keys: Keys that lead to the part; "" for an item of a list.

    Returns:
        The same with None for each text that is not on the allow-list, and without entries under
        odd keys.
    """
    if isinstance(value, Mapping):
        return {
            name: clean(part, (*keys, str(name)))
            for name, part in value.items()
            if _KEY.fullmatch(str(name))
        }
    if isinstance(value, list | tuple):
        return type(value)(clean(part, (*keys, "")) for part in value)
    if isinstance(value, str):
        return value if _is_public(value, keys) else None
    return value if isinstance(value, int | float) else None


def _is_public(value: str, keys: Sequence[str]) -> bool:
    """Return whether a text of settings is on the allow-list."""
    if value in _OFFICIAL or _DATASET.fullmatch(value) or _REFERENCE.fullmatch(value):
        return True
    if len(keys) > 1 and keys[-2] in _CLASS_LISTS:
        return not re.match(r"[~/\\.]|\w+:", value) and len(value) <= 100
    key = next((key for key in reversed(keys) if key), "").rpartition(".")[2]
    if key == "recipe":
        return bool(_RECIPE.fullmatch(value))
    return bool(_PUBLIC_KEYS.fullmatch(key) and _WORD.fullmatch(value))


def data_name(location: str) -> str:
    """Name a dataset that everyone knows.

    Args:
        location: Path or name of the data, as the settings of a run have it.

    Returns:
        The name of a registered dataset or one of torchvision; "" for any other.
    """
    match = re.fullmatch(r"torchvision:(?!ImageFolder|DatasetFolder|FakeData)(\w+)(:.*)?", location)
    return location if _DATASET.fullmatch(location) else match[1] if match else ""


def official_name(source: object) -> str:
    """Return a source of weights that is the name of an official file, or ""."""
    return str(source) if source in _OFFICIAL else ""


def section(settings: Any, *names: str) -> dict[Any, Any]:
    """Return a table in tables of settings; an empty one where there is none."""
    for name in names:
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings if isinstance(settings, dict) else {}


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[str]:
    try:
        yield file.read_text(encoding="utf-8")
    except (SyntaxError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def read_json(file: Path) -> Settings:
    """Read the settings of a run of `eva_engine`, or another table in JSON."""
    with _reading(file) as source:
        return {**json.loads(source)}


def read_python(file: Path) -> tuple[Settings, Settings, str]:
    """Read the settings of a run of mmengine: all, those that may be published, and their text."""
    with _reading(file) as source:
        module = ast.parse(source)
    settings = {
        line.targets[0].id: _literal(line.value)
        for line in module.body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }
    published = clean(settings)
    lines = (
        f"{name} = {pprint.pformat(value, width=100, sort_dicts=False)}\n"
        for name, value in published.items()
    )
    return settings, published, "".join(lines)


def task_of_engine(settings: Settings) -> str:
    """Name the task of a run of `eva_engine`."""
    task = "video" if "frames" in section(settings, "model") else "classification"
    return "pretrain" if "student" in settings else "clip" if "text" in settings else task


def task_of_mmengine(settings: Settings) -> str:
    """Name the task of a run of mmengine."""
    is_detector = "eva_mmdetection" in str(settings.get("custom_imports"))
    return (
        "mmdetection" if is_detector or settings.get("default_scope") == "mmdet" else "segmentation"
    )


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


def read_yaml(file: Path) -> tuple[Settings, Settings, str]:
    """Read the settings of a run of detectron2, see `read_python`."""
    with _reading(file) as source:
        settings = {**yaml.safe_load(source)}
        public = clean(settings)
    return settings, public, str(yaml.safe_dump(public, sort_keys=False, allow_unicode=True))
