"""Recipes by name: those of a checkout, and those that the installed package brings along.

A recipe is a file below `TASK/configs` in a checkout. In a wheel the same folders are
`eva_recipes/TASK`, beside the packages. Nothing is imported here: a summary is read off the source.
"""

import ast
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eva_backbone.checkpoints.hub import HubError
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import describe_missing
from eva_data.files import expand_home, is_there

PARENT_FOLDERS = ("_base_", "common")  # files that recipes inherit from, no recipes themselves
SUFFIXES = (".py", ".toml", ".yaml")
_FILES = (*SUFFIXES, ".yml", ".json")  # of a user, which the frameworks read, too
_LONGEST = 200  # letters of a name in a message
WEIGHTS = (".pt", ".pth", ".safetensors")
TASKS = ("detection", "mmdetection", "segmentation", "classification", "pretrain", "video", "clip")
_PACKAGES = Path(__file__).resolve().parents[1]  # site-packages, or core/ of a checkout
_SHOWN = 8  # names in a message
_PARTS = (  # folders of a dataset's parts, which do not name it
    *("annotations", "images", "imgs", "labels", "maps", "masks", "data", "dataset", "coco"),
    *("yolo", "voc", "train", "training", "val", "valid", "validation", "test"),
)


class NoRecipeError(ValueError):
    """A name that no recipe has."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that can be trained or evaluated."""

    name: str  # path below the recipes of its task, without suffix: what `find_recipe` takes
    path: Path
    summary: str  # first line of its docstring; of a file of data, its first comment; or empty


def recipe_folder(task: str) -> Path:
    """Return the folder with the recipes of a task, one of `TASKS`.

    Raises:
        ValueError: If there is no such task.
    """
    if task not in TASKS:
        close = difflib.get_close_matches(task, TASKS, n=3) or TASKS
        raise ValueError(f"there is no task {task!r}; close to it: {', '.join(close)}")
    installed = _PACKAGES / "eva_recipes" / task
    return installed if installed.is_dir() else _PACKAGES.parent / task / "configs"


def list_recipes(task: str) -> tuple[Recipe, ...]:
    """List the recipes of a task in Python by name, without files that they only inherit from."""
    return tuple(_read_docstring(recipe_folder(task), name) for name in _names(task, (".py",)))


def list_data_files(task: str) -> tuple[Recipe, ...]:
    """List what lies beside the recipes of a task as data: manifests in TOML, configs in YAML.

    Their names keep their suffix.
    """
    return tuple(_read_docstring(recipe_folder(task), name) for name in _names(task, SUFFIXES[1:]))


def find_recipe(task: str, name: str | os.PathLike[str]) -> Path:
    """Find a recipe by path or name.

    In this order: a Python, YAML, TOML or JSON file, returned as it is given; a path below the
    recipes of the task, such as `coco/cascade_mask_rcnn_vitdet_eva_g_1280`, which may lack its
    suffix or begin with `TASK/configs/`, as in a checkout; a file name with or without its suffix,
    where one recipe has it.

    Raises:
        ValueError: If there is no such task, or several recipes have the name.
        NoRecipeError: If there is no such recipe, with those that are close to it.
    """
    folder = recipe_folder(task)
    path = expand_home(name)
    exists = is_there(str(path))
    if exists and path.is_file() and path.suffix in _FILES:
        return path
    short_name = path.as_posix().removeprefix(f"{task}/configs/")
    if not path.is_absolute() and ".." not in path.parts:
        for suffix in ("", *SUFFIXES):
            below = folder / f"{short_name}{suffix}"
            if is_there(str(below)) and below.is_file():
                return below
    recipe_names = _names(task, SUFFIXES)
    same = [
        candidate
        for candidate in recipe_names
        if short_name in (Path(candidate).name, Path(candidate).stem)
    ]
    if len(same) == 1:
        return folder / same[0]
    if same:
        names = ", ".join(map(_plain, same))
        raise ValueError(
            f"several recipes of {task} are called {short_name!r}; name one of {names}"
        )
    if exists or path.suffix in WEIGHTS:
        hint = describe_missing(path) or f"that is none of {', '.join(_FILES)}"
    elif close := close_names(short_name, [_plain(candidate) for candidate in recipe_names]):
        hint = f"close to it: {close}"
    else:
        missing = describe_missing(path)
        hint = missing if len(path.parts) > 1 or path.suffix or "(" in missing else ""
    parts = f"there is no recipe {os.fspath(name)[:_LONGEST]!r} of {task}", hint
    raise NoRecipeError("; ".join([*filter(None, parts), f"`eva recipes {task}` lists all"]))


def require_start(task: str, source: str) -> None:
    """Find the weights that a run begins from, or raise and name a recipe that has its own."""
    try:
        resolve_source(source)
    except FileNotFoundError as error:
        if not isinstance(error.__cause__, HubError):
            raise
        small = next(name for name in _names(task, (".py",)) if "eva_debug" in name)
        message = f"{error}. The recipe {_plain(small)} needs no download"
        raise FileNotFoundError(message) from error


def stated_start(file: Path) -> str:
    """Read off a recipe's source which weights it begins from; "" where a parent says it."""
    stated = re.search(r'^(?:train\.init_checkpoint|load_from) = "(.*)"$', file.read_text(), re.M)
    return stated[1] if stated else ""


def recipe_name(task: str, file: str | os.PathLike[str]) -> str:
    """Return the name of a recipe of a task, and the path of another file as it is given."""
    path, folder = Path(file).resolve(), recipe_folder(task).resolve()
    inside = path.is_relative_to(folder)
    return path.relative_to(folder).with_suffix("").as_posix() if inside else str(file)


def name_on_own_data(recipe: str | os.PathLike[str], data: str | os.PathLike[str]) -> str:
    """Name the folder of a run of a recipe on a user's own data: by both.

    The recipe's own name of a folder would say that it is a run on the recipe's data.

    Returns:
        A name such as `coins_eva_g_24gb`, of letters, digits, dots and dashes, which no shell and
        no config reads in another way; empty if the recipe is not one of this toolkit.
    """
    file, data_path = Path(recipe).resolve(), Path(data).resolve()
    if not any(file.is_relative_to(recipe_folder(task)) for task in TASKS):
        return ""
    folders = [data_path, *data_path.parents] if data_path.is_dir() else data_path.parents
    names = (folder.name for folder in folders if folder.name and folder.name.lower() not in _PARTS)
    cleaned = filter(None, (re.sub(r"[^\w.-]+", "_", name).strip("_") for name in names))
    short = re.search(r"eva_.*", file.stem)
    return f"{next(cleaned, 'own_data')}_{short[0] if short else file.stem}"


def require_python(path: Path) -> None:
    """Refuse, by a ValueError, a config that is no file in Python."""
    if path.suffix != ".py":
        raise ValueError(f"{path} is no config in Python: its name ends in .py")


def _names(task: str, suffixes: tuple[str, ...]) -> list[str]:
    """Paths below the folder of a task, with suffix, without those of parents."""
    folder = recipe_folder(task)
    below = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in suffixes]
    return sorted(
        path.as_posix()
        for path in below
        if not {*PARENT_FOLDERS, "__pycache__"} & set(path.parts[:-1])
    )


def _plain(name: str) -> str:
    return name.removesuffix(".py")


def close_names(query: str, names: Sequence[str]) -> str:
    """List names that a misspelt one may mean, by their paths and by their last parts."""
    last = {Path(name).name: name for name in names}
    matches = difflib.get_close_matches(query, names, n=3, cutoff=0.5)
    ends = difflib.get_close_matches(Path(query).name, last, n=3, cutoff=0.5)
    both = [*matches, *(last[end] for end in ends), *(n for n in names if query and query in n)]
    return ", ".join(list(dict.fromkeys(both))[:_SHOWN])


def _read_docstring(folder: Path, name: str) -> Recipe:
    path = folder / name
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(content)) or "").splitlines()
    else:
        lines = [content.partition("\n")[0].lstrip("# ")] if content.startswith("#") else []
    return Recipe(name=_plain(name), path=path, summary=lines[0].strip() if lines else "")
