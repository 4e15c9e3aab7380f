"""`eva recipes` and `eva config`: list, show and copy recipes."""

import argparse
import ast
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eva_data.saving import write_text
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser
from eva_runs.recipes import (
    TASKS,
    NoRecipeError,
    close_names,
    find_recipe,
    list_data_files,
    list_recipes,
    recipe_folder,
)

_YAML_BASE = re.compile(r"""^_BASE_:\s*["']?([^"'\s#]+)""", re.MULTILINE)


def _parse_recipes(arguments: Sequence[str]) -> argparse.Namespace:
    description = "List the recipes, by the names that every command takes."
    parser = command_parser(description)
    parser.add_argument("task", nargs="?", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    return parser.parse_args(arguments)


def _list(options: argparse.Namespace) -> int:
    entries = list[dict[str, str]]()
    for task in [options.task] if options.task else TASKS:
        recipes = [*list_recipes(task), *list_data_files(task)]
        if recipes:
            echo(f"{task}: {recipe_folder(task)}")
        for recipe in recipes:
            left = f"  {recipe.name}" + (f"\n{'':48}" if len(recipe.name) > 46 else "")
            echo(f"{left:<48}  {recipe.summary}".rstrip())
            entries.append({"task": task, "name": recipe.name, "summary": recipe.summary})
    return Result(entries)


recipes = Command("eva recipes", _parse_recipes, _list)


def _parse_config(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Show a recipe and the files that it inherits from, or copy them all: the copy
keeps the layout and works wherever it lies."""
    parser = command_parser(description)
    add = parser.add_argument
    add("name", metavar="NAME", help="name that `eva recipes` lists, TASK/NAME, or path")
    add("--task", choices=TASKS, help="task, where several have a recipe of that name")
    add("--copy", type=Path, metavar="DIR", help="folder for the copy; nothing in it is replaced")
    return parser.parse_args(arguments)


def _show_or_copy(options: argparse.Namespace) -> int:
    task, path = find_task(options.name, options.task)
    if options.copy is not None:
        for file in _copy(path, recipe_folder(task), options.copy):
            echo(str(file))
        return 0
    echo(f"# {path}")
    for parent in with_parents(path)[1:]:
        echo(f"# inherits from {parent}")
    echo(path.read_text(encoding="utf-8").rstrip())
    return 0


config = Command("eva config", _parse_config, _show_or_copy)


def find_task(name: str, task: str | None) -> tuple[str, Path]:
    """Find the task and the file of a recipe; a path of a checkout names the task, too."""
    first, _, rest = name.partition("/")
    if task is None and first in TASKS and rest:
        task, name = first, name if Path(name).is_file() else rest.removeprefix("configs/")
    if task is not None:
        return task, find_recipe(task, name)
    matches = {}
    for task_name in TASKS:
        try:
            matches[task_name] = find_recipe(task_name, name)
        except NoRecipeError:
            continue
    if not matches:
        names = [f"{task}/{recipe.name}" for task in TASKS for recipe in list_recipes(task)]
        close = close_names(name, names)
        hint = f"close to it: {close}" if close else "`eva recipes` lists all"
        raise NoRecipeError(f"there is no recipe {name!r}; {hint}")
    if len(matches) > 1 and not Path(name).is_file():
        raise ValueError(
            f"a recipe {name!r} is in {', '.join(matches)}: --task chooses among several"
        )
    return next(iter(matches.items()))


def with_parents(recipe: Path) -> list[Path]:
    """List a recipe and every file beside it that it inherits from or names, each once.

    Three ways are followed: relative imports (LazyConfig), `_base_` (mmengine) or `_BASE_` (yacs),
    and `Path(__file__).with_name("FILE")` (the recipes of our own loops).

    Args:
        recipe: Recipe.

    Raises:
        FileNotFoundError: If a parent does not exist.
    """
    files = [recipe.resolve(strict=True)]
    for path in files:  # which grows
        parents = [parent.resolve(strict=True) for parent in _parents(path)]
        files += [parent for parent in dict.fromkeys(parents) if parent not in files]
    return files


def digest_of(recipe: Path) -> str:
    """Digest a recipe and its parents; of a file with parents of another form, it alone."""
    try:
        files = with_parents(recipe)
    except (ValueError, OSError):  # such as a computed `_base_`
        files = [recipe]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _copy(recipe: Path, folder: Path, destination: Path) -> list[Path]:
    """Copy a recipe and its parents, the recipe last; return the copies, the recipe's first.

    The copies keep the layout of the folder, or of the files where they lie elsewhere.
    """
    files = with_parents(recipe)
    root = folder.resolve()
    if not all(file.is_relative_to(root) for file in files):
        root = Path(os.path.commonpath([file.parent for file in files]))
    copies = {file: destination / file.relative_to(root) for file in files}
    existing = [str(copy) for copy in copies.values() if copy.exists()]
    if existing:
        raise ValueError(
            f"{', '.join(existing)}: a copy never replaces a file; name another folder"
        )
    for file, copy in reversed(copies.items()):
        write_text(copy, file.read_bytes().decode())
    return list(copies.values())


def _parents(path: Path) -> Iterator[Path]:
    content = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        yield from (path.parent / name for name in _YAML_BASE.findall(content) if "://" not in name)
    for node in ast.walk(ast.parse(content)) if path.suffix == ".py" else ():
        match node:
            case ast.ImportFrom(level=level) if level:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                folder = path.parents[level - 1]
                yield from (folder / f"{name.replace('.', '/')}.py" for name in modules)
            case ast.Assign(targets=[ast.Name(id="_base_")], value=value):
                bases = ast.literal_eval(value)
                bases = [bases] if isinstance(bases, str) else bases
                yield from (path.parent / name for name in bases if "::" not in name)
            case ast.Call(func=function, args=[ast.Constant(value=str() as name)]):
                if ast.unparse(function).endswith("Path(__file__).with_name"):
                    yield path.with_name(name)
