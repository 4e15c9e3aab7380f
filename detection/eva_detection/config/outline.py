"""What a recipe sets, read off its text: nothing is imported, so that mistakes answer at once.

A recipe is Python and may do anything; what is not plain here is `UNKNOWN`, and left to the checks
of the config itself.
"""

import ast
import copy
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

UNKNOWN: Any = ...  # a value, or a part of a config with whatever names
# Functions of `config.recipes` that set values below `model`, `optimizer` and the mappers alone.
_KNOWN_CALLS = ("set_vit", "set_image_size", "update_each", "drop_masks")
_STOCK = "stock_config"
Tree = dict[str, Any]  # name -> value, or what is below it


class NotPlainError(ValueError):
    """A recipe has statements that are not read here."""


def read_outline(file: Path) -> Tree:
    """Read the outline of a config.

    Args:
        file: A recipe in Python, or YAML such as a run's `config.yaml`.

    Returns:
        Names with values or what is below them; values that the text does not state are
        `UNKNOWN`.

    Raises:
        ValueError: If the file is not plain, or damaged.
        OSError: If it cannot be read.
    """
    text = file.read_text(encoding="utf-8")
    try:
        if file.suffix != ".py":
            content = yaml.load(text, Loader=_Plain)
            return content if isinstance(content, dict) else {}
        scope: Tree = {}
        for statement in ast.parse(text).body:
            _run(statement, scope, file)
    except (SyntaxError, RecursionError, yaml.YAMLError) as error:
        raise NotPlainError(f"{file} is not plain: {error}") from error
    return scope


class _Plain(yaml.SafeLoader):
    """Loader of plain values; everything with a tag of Python is `UNKNOWN`."""


_Plain.add_multi_constructor("", lambda *_: UNKNOWN)


def with_overrides(outline: Tree, overrides: Iterable[str]) -> Tree:
    """Apply `key=value` settings to an outline, as far as they are plain.

    Args:
        outline: What `read_outline` returned.
        overrides: Settings of the command line.
    """
    outline = copy.deepcopy(outline)
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and not key.startswith("~"):
            plain = not set(value) & set("{[$\\")
            _set(outline, key.lstrip("+").split("."), value.strip("'\"") if plain else UNKNOWN)
    return outline


def find(outline: Tree, name: str) -> Any:
    """Return what an outline has under a dotted name: a value, a dict, `UNKNOWN`; None without."""
    found: Any = outline
    for part in name.split("."):
        if found is UNKNOWN:
            return UNKNOWN
        found = found.get(part) if isinstance(found, dict) else None
    return UNKNOWN if isinstance(found, str) and "${" in found else found


def _run(statement: ast.stmt, scope: Tree, file: Path) -> None:
    if isinstance(statement, ast.ImportFrom):
        _import(statement, scope, file)
    elif isinstance(statement, ast.Import | ast.FunctionDef | ast.ClassDef):
        names = getattr(statement, "names", None) or [statement]
        scope |= {
            (getattr(one, "asname", None) or one.name).split(".")[0]: UNKNOWN for one in names
        }
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            _assign(target, statement.value, scope)
    elif isinstance(statement, ast.Delete):
        for target in statement.targets:
            *above, last = _path(target)
            parent = find(scope, ".".join(above)) if above else scope
            if isinstance(parent, dict):
                parent.pop(last, None)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        _call(statement.value, scope)
    elif not isinstance(statement, ast.Expr):
        raise NotPlainError(f"{file}:{statement.lineno} is not plain")


def _import(statement: ast.ImportFrom, scope: Tree, file: Path) -> None:
    source: Tree = {}
    if statement.level:
        folder = file.parents[statement.level - 1]
        source = read_outline(folder / f"{(statement.module or '').replace('.', '/')}.py")
    for one in statement.names:
        if one.name == "*":
            raise NotPlainError(f"{file} imports *")
        scope[one.asname or one.name] = source.get(one.name, UNKNOWN)


def _assign(target: ast.expr, value: ast.expr, scope: Tree) -> None:
    if isinstance(target, ast.Tuple):
        values = value.elts if isinstance(value, ast.Tuple) else [None] * len(target.elts)
        for part, its in zip(target.elts, values, strict=True):
            _set(scope, _path(part), _value(its, scope) if its else UNKNOWN)
    else:
        _set(scope, _path(target), _value(value, scope))


def _call(call: ast.Call, scope: Tree) -> None:
    """Follow `part.update(...)`; what another function is given may be changed by it."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "update":
        path = _path(function.value)
        for keyword in call.keywords:
            if keyword.arg is None:
                _set(scope, path, UNKNOWN)
            else:
                _set(scope, [*path, keyword.arg], _value(keyword.value, scope))
        if call.args:
            _set(scope, path, UNKNOWN)
    elif not (isinstance(function, ast.Name) and function.id in _KNOWN_CALLS):
        for node in ast.walk(call):
            if isinstance(node, ast.Name) and node.id in scope:
                scope[node.id] = UNKNOWN


def _path(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_path(node.value), node.attr]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return [*_path(node.value), str(node.slice.value)]
    raise NotPlainError("a name is computed")


def _set(tree: Tree, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        below = tree.setdefault(name, {})
        if below is UNKNOWN:
            return
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    tree[path[-1]] = value


def _value(node: ast.expr, scope: Tree) -> Any:
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, scope)
    if isinstance(node, ast.Call):
        function = node.func
        lazy = isinstance(function, ast.Call)  # L(Class)(...)
        if lazy or (isinstance(function, ast.Name) and function.id == "dict"):
            if node.args or any(one.arg is None for one in node.keywords):
                return UNKNOWN
            return {str(one.arg): _value(one.value, scope) for one in node.keywords}
        return _created(node)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def _created(node: ast.Call) -> Any:
    """Read `stock_config("...")` of detectron2's own files, and `OmegaConf.create()`."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "create" and not node.args:
        return {}
    named = isinstance(node.func, ast.Name) and node.func.id == _STOCK and node.args
    found = importlib.util.find_spec("detectron2") if named else None
    if found is None or found.origin is None or not isinstance(node.args[0], ast.Constant):
        return UNKNOWN
    return read_outline(Path(found.origin).parent / "model_zoo/configs" / str(node.args[0].value))


def _named(node: ast.expr, scope: Tree) -> Any:
    if isinstance(node, ast.Name):
        return scope.get(node.id, UNKNOWN)
    assert isinstance(node, ast.Attribute)
    above = _value(node.value, scope)
    return above.get(node.attr, UNKNOWN) if isinstance(above, dict) else UNKNOWN
