"""`eva recipes` and `eva config`: recipes listed, shown and copied."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_command.recipe_copies import copy_recipe, with_parents
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.slips import closest
from eva_runs.commands import program, say
from eva_runs.recipes import (
    TASKS,
    Recipe,
    find_recipe,
    list_data_files,
    list_recipes,
    recipe_folder,
)


def _parse_recipes(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="eva recipes",
        description="List the recipes, by the names that every command takes.",
    )
    parser.add_argument("task", nargs="?", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    return parser.parse_args(arguments)


def _recipes(options: argparse.Namespace) -> int:
    for task in [options.task] if options.task else TASKS:
        found = [*list_recipes(task), *list_data_files(task)]
        if not found and options.task:
            say(f"{task} has no recipes here")
        elif found:
            say(f"{task}: {recipe_folder(task)}")
            for recipe in found:
                say(_line(recipe))
    return 0


def _line(recipe: Recipe) -> str:
    left = f"  {recipe.name}"
    if len(left) > 48:
        left += f"\n{'':48}"
    return f"{left:<48}  {recipe.summary}".rstrip()


recipes = program(_parse_recipes, _recipes)


def _parse_config(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="eva config",
        description="Show a recipe and the files that it inherits from, or copy them all: the copy "
        "keeps the layout and works wherever it lies.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="name that `eva recipes` lists, TASK/NAME, or path")
    add("--task", choices=TASKS, help="task, where several have a recipe of that name")
    add("--copy", type=Path, metavar="DIR", help="folder for the copy; nothing in it is replaced")
    return parser.parse_args(arguments)


def _config(options: argparse.Namespace) -> int:
    task, path = _find(options.name, options.task)
    folder = recipe_folder(task)
    if options.copy is None:
        say(f"# {path}")
        for parent in with_parents(path)[1:]:
            say(f"# inherits from {parent}")
        say(path.read_text(encoding="utf-8").rstrip())
        return 0
    for file in copy_recipe(path, folder, options.copy):
        say(str(file))
    return 0


def _find(name: str, task: str | None) -> tuple[str, Path]:
    """Find the task and the file of a recipe; a path of a checkout names the task, too."""
    first, _, rest = name.partition("/")
    if task is None and first in TASKS and rest:
        return first, find_recipe(first, rest.removeprefix("configs/"))
    found, messages = {}, []
    for one in [task] if task else TASKS:
        try:
            found[one] = find_recipe(one, name)
        except ValueError as error:
            messages.append(str(error))
    if len(found) == 1 or (found and Path(name).is_file()):
        return next(iter(found.items()))
    if found:
        raise ValueError(
            f"{', '.join(found)} have a recipe {name!r}: say which with --task, or "
            f"{next(iter(found))}/{name}"
        )
    several = [text for text in messages if "are called" in text]
    if several or len(messages) == 1:
        raise ValueError("\n".join(several or messages))
    named = {
        Path(one.name).stem: f"{task}/{one.name}" for task in TASKS for one in list_recipes(task)
    }
    close = ", ".join(named[one] for one in closest(Path(name).stem, named))
    hint = f"close to it: {close}; " if close else ""
    raise ValueError(f"there is no recipe {name!r} of any task; {hint}`eva recipes` lists all")


config = program(_parse_config, _config)
