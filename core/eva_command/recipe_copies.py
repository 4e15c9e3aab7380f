"""Copies of a recipe that work alone: with every file that it inherits from, in the same layout."""

import ast
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from eva_data.files import explained, flush, make_folder

_YAML_BASE = re.compile(r"""^_BASE_:\s*["']?([^"'\s#]+)""", re.MULTILINE)


def with_parents(recipe: Path) -> list[Path]:
    """List a recipe and every file beside it that it inherits from or names.

    Three ways are followed: relative imports (LazyConfig), `_base_` (mmengine) or `_BASE_` (yacs),
    and `Path(__file__).with_name("FILE")` (the recipes of our own loops).

    Args:
        recipe: Recipe.

    Returns:
        The recipe, then its parents, each once.

    Raises:
        ValueError: If a parent does not exist.
    """
    found: list[Path] = []
    waiting = [recipe.resolve()]
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            found.append(path)
            waiting += _parents(path)
    return found


def copy_recipe(recipe: Path, folder: Path, destination: Path) -> list[Path]:
    """Copy a recipe and its parents, completely or not at all.

    Args:
        recipe: Recipe.
        folder: Folder of all recipes of its task, whose layout the copy keeps; a recipe that lies
            elsewhere keeps the layout of itself and its parents.
        destination: Folder of the copies, made if it does not exist.

    Returns:
        The copies; the first is that of the recipe.

    Raises:
        ValueError: If one of the copies exists already, or a parent does not.
        UnwritableError: If the disk is full, for example; then nothing of the copy stays.
    """
    files = with_parents(recipe)
    root = folder.resolve()
    if not all(file.is_relative_to(root) for file in files):
        root = _common_folder(files)
    copies = {file: destination / file.relative_to(root) for file in files}
    there = [str(copy) for copy in copies.values() if copy.exists()]
    if there:
        raise ValueError(
            f"{', '.join(there)}: there already, and a copy never replaces a file; name another "
            "folder"
        )
    with ExitStack() as undone:
        for file, copy in reversed(copies.items()):  # the recipe last, which needs the others
            for new in reversed([path for path in copy.parents if not path.exists()]):
                undone.callback(_remove_empty, new)
                make_folder(new)
            write_new(copy, file.read_bytes())
            undone.callback(copy.unlink, missing_ok=True)
        undone.pop_all()
    return list(copies.values())


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # something of someone else's is in it
        folder.rmdir()


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, and appears when it is complete.

    Args:
        path: The file; its folder exists.
        content: Its bytes.

    Raises:
        UnwritableError: If it is there, or the disk is full, for example; then nothing of it stays.
    """
    part = path.with_name(f".{path.name}.writing-{os.getpid()}")
    with explained(path):
        try:
            part.write_bytes(content)
            flush(part)
            os.link(part, path)  # which replaces no file
        finally:
            part.unlink(missing_ok=True)


def _common_folder(files: list[Path]) -> Path:
    root = files[0].parent
    while not all(file.is_relative_to(root) for file in files):
        root = root.parent
    return root


def _parents(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        names = [*_named(ast.parse(text), path)]
    elif path.suffix in (".yaml", ".yml"):
        names = [path.parent / name for name in _YAML_BASE.findall(text) if "://" not in name]
    else:
        names = []
    for name in names:
        if not name.is_file():
            raise ValueError(f"{path} inherits from {name}, and there is no such file")
    return [name.resolve() for name in names]


def _named(tree: ast.Module, path: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            if node.module:
                yield folder / f"{node.module.replace('.', '/')}.py"
            else:
                yield from (folder / f"{alias.name}.py" for alias in node.names)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_":
            yield from (path.parent / name for name in _strings(node.value) if "::" not in name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            "Path(__file__).with_name"
        ):
            yield from (path.with_name(name) for name in _strings(node.args[0]))


def _strings(node: ast.expr) -> list[str]:
    value = ast.literal_eval(node)
    return [value] if isinstance(value, str) else list(value)
