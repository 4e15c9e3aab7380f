"""Configs in files, and their overrides: a recipe in Python is code, a config in YAML is data.

detectron2 reads YAML with `yaml.unsafe_load`; here tags are those that `LazyConfig.save` writes,
and targets the parts that detectors are built of.
"""

import builtins
import contextlib
import functools
import inspect
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from detectron2.config import LazyConfig
from detectron2.data import get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import eva_detection.data.datasets  # noqa: F401 (a saved config may name its datasets)
from eva_data.files import require_regular_file
from eva_detection.building import error_context

MODULES_VARIABLE = "EVA_CONFIG_MODULES"  # further modules that YAML configs may name
# Where what a config may name is defined: classes and functions that build, and do nothing else.
# Not here: what reads other configs, starts programs, downloads, or returns any object by name.
_MODULES = (
    "detectron2.data.build",
    "detectron2.data.dataset_mapper",
    "detectron2.data.samplers",
    "detectron2.data.transforms",
    "detectron2.evaluation",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.solver",
    "detectron2.structures",
    "eva_backbone.feature_pyramid",
    "eva_backbone.layer_decay",
    "eva_backbone.vit",
    "eva_detection.data.custom_data",
    "eva_detection.data.datasets",
    "eva_detection.data.mapper",
    "eva_detection.evaluation.evaluators",
    "eva_detection.inference.test_time_augmentation",
    "eva_detection.model.backbone",
    "eva_detection.model.rcnn",
    "eva_detection.model.roi_heads",
    "eva_detection.training.optimizer",
    "fvcore.common.param_scheduler",
    "fvcore.nn",
    "fvcore.transforms",
    "torch.nn.modules",
    "torch.optim",
)
_NOT = ("detectron2.data.build.load_proposals_into_dataset", "detectron2.modeling.mmdet_wrapper")
_ROOTS = ("detectron2", "eva_backbone", "eva_detection", "fvcore", "torch.nn", "torch.optim")
_NAME = re.compile(r"[A-Za-z]\w*(\.(?!__)[A-Za-z_]\w*)+")
_REFERENCE = re.compile(r"\$\{\.*[\w.\[\]-]+\}")  # to another value; no resolver such as oc.env
_MAX_BYTES, _MAX_VALUES = 4 * 2**20, 1_000_000
_PYTHON = "tag:yaml.org,2002:python/"
_DAMAGE = (
    *(yaml.YAMLError, OmegaConfBaseException),
    *(ValueError, TypeError, KeyError, RecursionError),
)
_YACS = frozenset({"MODEL", "_BASE_", "DATASETS", "SOLVER"})


def load_config_file(file: str | os.PathLike[str]) -> DictConfig:
    """Load a config, as `LazyConfig.load`, but for YAML, in which nothing runs.

    `EVA_CONFIG_MODULES` lists modules of your own that YAML may name, separated by commas. An
    OSError names a file that is not there, a ValueError YAML that is damaged, too large, or names
    what a detector is not built of.
    """
    path = Path(file)
    require_regular_file(path)
    if path.suffix == ".py":
        imports = builtins.__import__
        try:
            return LazyConfig.load(str(path))
        finally:
            builtins.__import__ = imports  # detectron2 leaves its own there if a recipe fails
    with error_context(f"{file} is not a config", _DAMAGE):
        size = path.stat().st_size
        content = _read_yaml(path.read_text(encoding="utf-8")) if size <= _MAX_BYTES else size
        if not isinstance(content, dict) or not _YACS.isdisjoint(content):
            raise ValueError(
                f"{size:,} bytes are not a LazyConfig; one of yacs is for detectron2's own trainers"
            )
        _check(content, "")
        return OmegaConf.create(content, flags={"allow_objects": True})


def is_yacs(file: str | os.PathLike[str]) -> bool:
    """Return whether a file is a config of yacs, whose sections are in capitals."""
    content = Path(file).read_text(encoding="utf-8", errors="replace")
    return bool(re.search(rf"^({'|'.join(_YACS)}):", content, re.MULTILINE))


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Apply settings of the command line; a value must stay of its kind."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        with error_context(f"the setting {override!r} cannot be applied"):
            before = OmegaConf.select(cfg, key)
            LazyConfig.apply_overrides(cfg, [override])
            after = OmegaConf.select(cfg, key)
            if key != "test.slice" and not _fits(before, after):  # pixels, or auto
                raise TypeError(f"{after!r} in place of {before!r}")


def _fits(before: Any, after: Any) -> bool:
    """Return whether a value is not of another kind: `no` is a text, which counts as true."""
    if after is None:
        return True
    if isinstance(before, bool | DictConfig):
        return isinstance(after, type(before))
    return not (isinstance(before, int | float) and isinstance(after, str | bool))


def literal(value: str) -> str:
    r"""Escape a name that comes from data, such as `${oc.env:HOME}`, by `\${` for `${`."""
    return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loader of plain values, tuples, known functions, their partials and `ShapeSpec`."""


def _read_yaml(content: str) -> Any:
    loader = _Loader(content)
    node = loader.get_single_node()
    if node is not None:
        _count(node, {})
    return node and loader.construct_document(node)


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Count the values of a node, its aliases resolved; refuse too many, and circles."""
    if id(node) not in counts:
        counts[id(node)] = _MAX_VALUES + 1  # met again below itself
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (child if isinstance(child, tuple) else (child,) for child in children)
        total = 1
        for part in itertools.chain.from_iterable(parts):
            total += _count(part, counts)
            if total > _MAX_VALUES:
                raise ValueError("its aliases stand for too many values, or for themselves")
        counts[id(node)] = total
    return counts[id(node)]


def _find_function(name: Any) -> Any:
    """Find the class or function of a name, if detectors are built of it."""
    own = tuple(part.strip() for part in os.environ.get(MODULES_VARIABLE, "").split(",") if part)
    target: Any = None
    if isinstance(name, str) and _NAME.fullmatch(name) and _within(name, _ROOTS + own):
        with contextlib.suppress(Exception):  # of hydra, or of the module that is imported
            target = locate(name)
    kind = inspect.isclass(target) or inspect.isroutine(target)
    home = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if not kind or not _within(home, _MODULES + own) or _within(home, _NOT):
        _refuse(name)
    return target


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return f"{name}.".startswith(tuple(f"{module}." for module in modules))


def _refuse(name: Any) -> NoReturn:
    raise ValueError(
        f"it names {name}, which is not a part that detectors are built of and could run anything; "
        f"a part of your own needs {MODULES_VARIABLE}=ITS_MODULE"
    )


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    function = _find_function(suffix)
    if function is get_detection_dataset_dicts:  # its fourth argument names pickles
        _refuse(suffix)
    return function


def _partial(loader: _Loader, node: yaml.Node) -> functools.partial[Any]:
    """Make a partial of `args: [function]` and `state: (function, arguments, named, ...)`."""
    content = loader.construct_mapping(node, deep=True)
    function, arguments, keywords, _ = content["state"]
    plain = isinstance(arguments, tuple) and isinstance(keywords, dict) and len(content) == 2
    if not (callable(function) and plain):
        _refuse(content)
    return functools.partial(function, *arguments, **keywords)


_Loader.add_constructor(
    f"{_PYTHON}tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)
_Loader.add_constructor(
    f"{_PYTHON}object:detectron2.layers.shape_spec.ShapeSpec",
    lambda loader, node: ShapeSpec(**loader.construct_mapping(node, deep=True)),
)
_Loader.add_constructor(f"{_PYTHON}object/apply:functools.partial", _partial)
_Loader.add_multi_constructor(f"{_PYTHON}name:", _function)
_Loader.add_multi_constructor(_PYTHON, lambda loader, tag, node: _refuse(tag.rpartition(":")[2]))


def _check(value: Any, key: str) -> None:
    """Refuse targets that are not known, resolvers, and proposals, which are pickles."""
    if isinstance(value, str):
        for match in re.finditer(r"(\\*)\$\{", value):
            escaped = len(match[1]) % 2 == 1
            if not escaped and not _REFERENCE.match(value, match.end() - 2):
                _refuse(f"{key}={value!r}")
    elif isinstance(value, functools.partial):
        _check([*value.args, value.keywords], key)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            _check(part, f"{key}[{index}]")
    elif isinstance(value, dict):
        for name, part in value.items():
            below = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                _find_function(part)
            if "proposal_file" in str(name).lower() and part:
                _refuse(f"{below}={part!r}")
            _check(part, below)
