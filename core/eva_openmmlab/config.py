"""Configs of mmengine: read as data where they are data, changed by settings, checked for files.

A config in Python is a program, and so are those that it inherits from. One in YAML or JSON is
data; mmengine would run whatever Python a YAML file asks for. Configs such as `mmseg::NAME` come
from the maintained forks: mmengine knows distributions by the names of the original projects, and
would install those over the same files.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import load, register_handler
from mmengine.fileio.handlers import YamlHandler
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings, package_utils

from eva_data.files import home_expanded
from eva_openmmlab.run_folder import config_of_run
from eva_runs.extras import sentence_of
from eva_runs.recipes import find_recipe

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
FORKS = {
    "mmseg": "onedl-mmsegmentation",
    "mmdet": "onedl-mmdetection",
    "mmpretrain": "onedl-mmpretrain",
}
# that own the same files as a fork, or bring one along that does
_ORIGINALS = {"mmcv", "mmcv-full", "mmcv-lite", "mmengine", "mmengine-lite"} | {
    *MODULE2PACKAGE,
    *MODULE2PACKAGE.values(),
    *FORKS.values(),
}
# that a config in data may import
_MODULES = ("eva_segmentation.plugin", "eva_mmdetection.plugin", "mmdet.models")
_KIND = re.compile(
    r"((mmcv|mmdet|mmengine|mmpretrain|mmseg)\.)?[A-Z]\w*|pseudo_collate|default_collate"
)
_DATA = (".json", ".yaml", ".yml")
# read by the runner from the config itself
_OF_RUNNER = {
    *("runner_type", "activation_checkpointing", "compile", "efficient_conv_bn_eval"),
    *("find_unused_parameters", "model_wrapper_cfg", "sync_bn"),
}
_ELSEWHERE = (
    "put the dataset there, name its folder with --data-root, or data of your own with the flags "
    "that --help lists"
)


class _Loader(yaml.SafeLoader):
    """Plain data, and the tuples of a config that was saved."""


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


@register_handler(["yaml", "yml"])
class SafeYamlHandler(YamlHandler):
    """mmengine's reader and writer of YAML, which reads no Python objects."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read plain data from an open file."""
        del kwargs
        return yaml.load(file, Loader=_Loader)


class Refusing:
    """mmengine's `call_command`, which `install_package` calls, without OpenMMLab's packages.

    Args:
        call: mmengine's function.
    """

    def __init__(self, call: Callable[[list[str]], None]) -> None:
        self._call = call

    def __call__(self, cmd: Sequence[str]) -> None:
        """Run a command.

        Args:
            cmd: Program and arguments.

        Raises:
            ValueError: If it would install a package of OpenMMLab.
        """
        name = cmd[-1] if "install" in cmd else ""
        if name.lower().replace("_", "-") in _ORIGINALS:
            raise ValueError(
                f"mmengine would run `pip install {name}`, which may replace the maintained forks "
                'of OpenMMLab\'s packages; `pip install "eva-toolkit[segmentation]"` installs what '
                "is tested together, and a config is also found by its path"
            )
        self._call(list(cmd))


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def serve_forks() -> None:
    """Let mmengine find the configs of the installed forks, and install no original over them."""
    for module, fork in FORKS.items():
        original = MODULE2PACKAGE[module]
        if original != fork and _is_installed(fork) and not _is_installed(original):
            MODULE2PACKAGE[module] = fork
    if not isinstance(package_utils.call_command, Refusing):
        package_utils.call_command = Refusing(package_utils.call_command)


serve_forks()


# ---- reading -------------------------------------------------------------------------------------


def load_config(
    path: str | os.PathLike[str], settings: Mapping[str, str] | None = None, *, plugins: bool = True
) -> Config:
    """Read a config and merge settings into it.

    Args:
        path: File in Python, YAML or JSON.
        settings: Dotted name -> text, as a command line has it.
        plugins: Import what its `custom_imports` names, and with it a framework; without,
            `import_plugins` does it later.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, or a setting does not belong to it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    if path.suffix in _DATA:
        _check_data(path)
    # mmengine replaces `{{ fileBasename }}` and the like; a saved config is as it was
    replaces = path.suffix not in _DATA and config_of_run(path) != path
    try:
        cfg = Config.fromfile(
            path,
            use_predefined_variables=replaces,
            use_environment_variables=replaces,
            import_custom_modules=plugins,
        )
    except Exception as error:  # a config in Python is a program: it raises anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(_missing(error) or f"{path} cannot be read ({reason})") from error
    if settings:
        _merge(cfg, settings)
    return cfg


def import_plugins(cfg: Config) -> None:
    """Import what a config names in `custom_imports`.

    Args:
        cfg: Config that was read without its plugins.

    Raises:
        ValueError: If it cannot be imported; the message says why.
    """
    if imports := cfg.get("custom_imports"):
        try:
            import_modules_from_strings(**imports)
        except Exception as error:  # whatever a module raises
            reason = f"custom_imports of {cfg.filename} ({type(error).__name__}: {error})"
            raise ValueError(_missing(error) or reason) from error


def _missing(error: BaseException | None) -> str | None:
    """Say which package is not installed, where that is why a plugin cannot be imported."""
    while error is not None:  # mmengine's errors quote the name of the plugin alone
        if isinstance(error, ImportError) and (sentence := sentence_of(error)):
            return sentence
        error = error.__cause__ or error.__context__
    return None


def _check_data(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a config in YAML or JSON that names other programs, itself or in what it inherits.

    mmengine imports what `custom_imports` and a `type` with dots name, and calls the latter.
    """
    try:
        content = load(path)
    except Exception as error:  # of the readers
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a config but {type(content).__name__}")
    modules = (content.get("custom_imports") or {}).get("imports") or []
    bases = content.get("_base_") or []
    programs = [str(base) for base in ([bases] if isinstance(bases, str) else bases)]
    names = [modules] if isinstance(modules, str) else list(modules)
    wrong = [str(name) for name in names if str(name) not in _MODULES]
    wrong += [base for base in programs if "::" in base or Path(base).suffix not in _DATA]
    wrong += [str(kind) for kind in _types(content) if not _KIND.fullmatch(str(kind))]
    here = (*above, path.resolve())
    wrong += [base for base in programs if (path.parent / base).resolve() in here]
    if wrong:
        raise ValueError(
            f"{path} is data and names programs, or itself: {', '.join(wrong[:3])}; if you trust "
            "it, write it in Python"
        )
    for base in programs:
        _check_data((path.parent / base).resolve(), here)


def _types(node: Any) -> Iterator[Any]:
    for part in dicts(node):
        yield from (part[key] for key in ("type", "runner_type", "constructor") if key in part)


def dicts(node: Any) -> Iterator[Any]:
    """Yield all dicts inside a part of a config, the outermost first."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list | tuple):
        for value in list(node.values() if isinstance(node, dict) else node):
            yield from dicts(value)


# ---- settings ------------------------------------------------------------------------------------


def _merge(cfg: Config, settings: Mapping[str, str]) -> None:
    """Merge settings that something reads: mmengine would add any name and read no other."""
    for name in settings:
        if not _is_read(cfg, name):
            raise ValueError(f"option {name}: {cfg.filename} has no such setting, nothing reads it")
    cfg.merge_from_dict({name: DictAction._parse_iterable(v) for name, v in settings.items()})


def _is_read(cfg: Config, name: str) -> bool:
    node, place = cfg, ""
    for part in name.split("."):
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                return False
            node = node[int(part)]
        elif not isinstance(node, Mapping | Config):
            return False
        elif part in node:
            node = node[part]
        elif node is cfg:
            return part in _OF_RUNNER or part in inspect.signature(Runner).parameters
        else:  # constructors and functions refuse names that they do not know
            return "type" in node or place in (*LOADERS, "randomness")
        place = part
    return True


# ---- data ----------------------------------------------------------------------------------------


def parts_of(dataset: Any) -> list[Any]:
    """List the datasets that a config names, without what wraps or concatenates them.

    Args:
        dataset: Config of a dataset.
    """
    inner = dataset.get("dataset", dataset.get("datasets"))
    if inner is None:
        return [dataset]
    return [
        part for one in (inner if isinstance(inner, list) else [inner]) for part in parts_of(one)
    ]


def set_data_root(cfg: Config, folder: str | os.PathLike[str]) -> None:
    """Let all loaders, and the metrics that read annotations, read below one folder.

    Args:
        cfg: The config.
        folder: Folder in place of the config's `data_root`.

    Raises:
        ValueError: If the config names files by paths of their own, as one with own data does.
    """
    moved: dict[str, str] = {}
    for name in LOADERS:
        for dataset in parts_of(cfg[name].dataset) if cfg.get(name) else ():
            if file := dataset.get("ann_file"):
                if Path(file).is_absolute():
                    raise ValueError(f"--data-root {folder} has no effect on {file} of {name}")
                before = Path(dataset.get("data_root") or "") / file
                moved[str(before)] = str(Path(folder) / file)
            dataset.data_root = os.fspath(folder)
    for name in ("val_evaluator", "test_evaluator"):
        metrics = cfg.get(name) or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            file = str(Path(metric.get("ann_file") or ""))
            metric.update({"ann_file": moved[file]} if file in moved else {})


def require_data(cfg: Config, parts: Sequence[str]) -> None:
    """Look for the folders and annotation files that a run needs.

    Args:
        cfg: The config.
        parts: What is used: "train", "val", "test".

    Raises:
        FileNotFoundError: Naming what is missing and how to get it.
    """
    for name in (f"{part}_dataloader" for part in parts):
        for dataset in parts_of(cfg[name].dataset) if cfg.get(name) else ():
            root = Path(dataset.get("data_root") or "")
            prefixes = (dataset.get("data_prefix") or {}).values()
            missing = [root / prefix for prefix in prefixes if not (root / prefix).is_dir()]
            file = dataset.get("ann_file")
            if file and not (root / file).is_file():
                missing.append(root / file)
            if missing:
                fix = _ELSEWHERE
                if "digit_scenes" in str(root):
                    fix = f"`eva data make-demo --output {root.parent}` makes it"
                raise FileNotFoundError(f"there is no {missing[0]}, which {name} reads; {fix}")


# ---- predictors ----------------------------------------------------------------------------------


class Named(NamedTuple):
    """What a predictor is built of.

    Attributes:
        config: The config, with its plugins.
        weights: Weights as `eva_backbone.checkpoints.registry.resolve_source` takes them.
        device: The device.
    """

    config: Config
    weights: str | os.PathLike[str]
    device: torch.device


def named_predictor(
    config: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    device: str | None,
    *,
    task: str,
) -> Named:
    """Read what a caller names for a predictor.

    Args:
        config: Name of a recipe, a config file, or the folder of a run.
        weights: Weights; None for those of the run that `config` names.
        device: Such as "cuda", "cuda:1" or "cpu"; None for the GPU if there is one.
        task: Task of the recipes.

    Raises:
        ValueError: If there is no such recipe, run or device, no weights are named, or the config
            has no model and `test_dataloader`.
    """
    place = home_expanded(config)
    if place.is_dir() or (place.suffix == ".pth" and place.is_file()):
        path, weights = config_of_run(place), config if weights is None else weights
        if path is None:
            raise ValueError(f"{place} has no config of a run: name a recipe and weights")
    else:
        path = find_recipe(task, config)
    if weights is None:
        raise ValueError(f"name the weights of {config}: a path, an official name, a run's folder")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} must be cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: there are {torch.cuda.device_count()} GPUs here")
    cfg = load_config(path)
    if not cfg.get("model") or not cfg.get("test_dataloader"):
        raise ValueError(f"{path} has no model and test_dataloader")
    return Named(cfg, weights, chosen)
