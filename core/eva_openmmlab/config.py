"""Configs of mmengine: read as data where they are data, changed by settings, checked for files.

A config in Python is a program, and so are those that it inherits from. One in YAML or JSON is
data; mmengine would run whatever Python a YAML file asks for. Configs such as `mmseg::NAME` come
from the maintained forks, which mmengine knows under the names of the original projects alone.
"""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import load, register_handler
from mmengine.fileio.handlers import YamlHandler
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from eva_openmmlab.own_data import as_list, dicts
from eva_openmmlab.run_folder import config_of_run
from eva_runs.extras import sentence_of

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
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
MODULE2PACKAGE.update(mmseg="onedl-mmsegmentation", mmdet="onedl-mmdetection")


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
        return yaml.load(file, Loader=_Loader)


# ---- reading -------------------------------------------------------------------------------------


def load_config(
    path: str | os.PathLike[str], settings: Mapping[str, str] | None = None, *, plugins: bool = True
) -> Config:
    """Read a config and merge settings into it.

    Args:
        path: File in Python, YAML or JSON.
        settings: Dotted name -> text, as a command line has it.
        plugins: Import what its `custom_imports` names now; else `import_plugins` does it later.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, or a setting does not belong to it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    # mmengine replaces `{{ fileBasename }}` and the like; a saved config is as it was
    replaces = path.suffix not in _DATA and config_of_run(path) != path
    try:
        if path.suffix in _DATA:
            _check_data(path)
        cfg = Config.fromfile(
            path,
            use_predefined_variables=replaces,
            use_environment_variables=replaces,
            import_custom_modules=plugins,
        )
    except Exception as error:  # a config in Python is a program: it raises anything
        raise _unreadable(path, error) from error
    for name in settings or {}:  # mmengine would add any name
        if not _is_read(cfg, name):
            raise ValueError(f"option {name}: {cfg.filename} has no such setting, nothing reads it")
    given = (settings or {}).items()
    cfg.merge_from_dict({name: DictAction._parse_iterable(value) for name, value in given})
    return cfg


def import_plugins(cfg: Config) -> None:
    """Import what a config that was read without plugins names in `custom_imports`.

    Raises:
        ValueError: If it cannot be imported; the message says why.
    """
    if imports := cfg.get("custom_imports"):
        try:
            import_modules_from_strings(**imports)
        except Exception as error:  # whatever a module raises
            raise _unreadable(cfg.filename, error) from error


def _unreadable(path: Any, error: Exception) -> ValueError:
    """Name the package that is not installed, where that is why a config cannot be read."""
    cause: BaseException | None = error
    while cause is not None:  # mmengine's errors quote the name of the plugin alone
        if isinstance(cause, ImportError) and (sentence := sentence_of(cause)):
            return ValueError(sentence)
        cause = cause.__cause__ or cause.__context__
    return ValueError(f"{path} cannot be read ({type(error).__name__}: {error})")


def _check_data(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a config in YAML or JSON that names other programs, itself or in what it inherits.

    mmengine imports what `custom_imports` and a `type` with dots name, and calls the latter.
    """
    content = load(path)
    if not isinstance(content, dict):
        raise TypeError(f"not a config but {type(content).__name__}")
    modules = as_list((content.get("custom_imports") or {}).get("imports"))
    bases = [str(base) for base in as_list(content.get("_base_"))]
    kinds = [
        part[key]
        for part in dicts(content)
        for key in ("type", "runner_type", "constructor")
        if key in part
    ]
    here = (*above, path.resolve())
    wrong = [str(name) for name in modules if str(name) not in _MODULES]
    wrong += [str(kind) for kind in kinds if not _KIND.fullmatch(str(kind))]
    for base in bases:
        named = (path.parent / base).resolve()
        if "::" in base or named.suffix not in _DATA or named in here:
            wrong.append(base)
    if wrong:
        raise ValueError(
            f"{path.name} is data, and names programs or itself: {', '.join(wrong[:3])}; if you "
            "trust it, write it in Python"
        )
    for base in bases:
        _check_data((path.parent / base).resolve(), here)


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


# ---- changes -------------------------------------------------------------------------------------


def parts_of(dataset: Any) -> list[Any]:
    """List the datasets that the config of one names, without what wraps or concatenates them."""
    inner = dataset.get("dataset", dataset.get("datasets"))
    if inner is None:
        return [dataset]
    return [
        part for one in (inner if isinstance(inner, list) else [inner]) for part in parts_of(one)
    ]


def set_data_root(cfg: Config, folder: str | os.PathLike[str]) -> None:
    """Let all loaders, and the metrics that read annotations, read below one folder.

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
    """Look for the folders and annotation files that "train", "val" or "test" need.

    Raises:
        FileNotFoundError: Naming what is missing and how to get it.
    """
    for name in (f"{part}_dataloader" for part in parts):
        for dataset in parts_of(cfg[name].dataset) if cfg.get(name) else ():
            root = Path(dataset.get("data_root") or "")
            folders = [root / prefix for prefix in (dataset.get("data_prefix") or {}).values()]
            missing = [folder for folder in folders if not folder.is_dir()]
            file = dataset.get("ann_file")
            if file and not (root / file).is_file():
                missing.append(root / file)
            if missing:
                fix = "name the folder of the dataset with --data-root, or own data (see --help)"
                if "digit_scenes" in str(root):
                    fix = f"`eva data make-demo --output {root.parent}` makes it"
                raise FileNotFoundError(f"there is no {missing[0]}, which {name} reads; {fix}")
