"""What a recipe sets, read off its text: nothing is imported, so that mistakes answer at once.

A recipe is Python and may do anything; what is not plain here is `UNKNOWN`, and left to the checks
of the config itself.
"""

import ast
import contextlib
import copy
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

UNKNOWN: Any = ...  # a value, or a part of a config with whatever names
TARGET, OTHERS = "_target_", "*"  # key of a class or function; of settings that are not stated
_LAZY_CALL = "detectron2.config.LazyCall"
_CONSTANTS = {"true": True, "false": False, "null": None, "nan": UNKNOWN, "inf": UNKNOWN}
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_FRACTION = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+([eE][+-]?\d+)?|[eE][+-]?\d+)")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*|\d+[A-Za-z]+")
# Functions of `config.recipes` that set values below `model`, `optimizer` and the mappers alone.
_KNOWN_CALLS = ("set_vit", "set_image_size", "update_each", "drop_masks")
_STOCK = "stock_config"
_CONTAINERS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.DictComp, ast.SetComp)
Tree = dict[str, Any]  # name -> value, or what is below it


class NotPlainError(ValueError):
    """A recipe has statements that are not read here."""


@dataclass(frozen=True)
class Imported:
    """What a recipe imports from elsewhere.

    Attributes:
        name: Its name with that of its module.
    """

    name: str


def is_open(value: Any) -> bool:
    """Return whether a value, or what is below it, is not stated by the text."""
    return value is UNKNOWN or isinstance(value, Imported)


def read_outline(file: Path) -> Tree:
    """Read the outline of a config.

    Args:
        file: A recipe in Python, or YAML such as a run's `config.yaml`.

    Returns:
        Names with values or what is below them; values that the text does not state are
        `UNKNOWN`, and `Imported` what it imports, such as the class that `_target_` names.

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
    return {
        name: UNKNOWN if isinstance(value, ast.FunctionDef) else value
        for name, value in scope.items()
    }


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


def plain_value(text: str) -> Any:
    """Return what a value on the command line stands for, where that is plain.

    Args:
        text: What follows the `=` of a setting.

    Returns:
        A number, truth value, None or word; `UNKNOWN` for all else.
    """
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    return text if _WORD.fullmatch(text) else UNKNOWN


def find(outline: Tree, name: str) -> Any:
    """Return what an outline has under a dotted name: a value, a dict, `UNKNOWN`; None without."""
    found: Any = outline
    for part in name.split("."):
        if is_open(found):
            return UNKNOWN
        found = found.get(part, found.get(OTHERS)) if isinstance(found, dict) else None
    refers = isinstance(found, str) and "${" in found
    return UNKNOWN if refers or is_open(found) else found


def _run(statement: ast.stmt, scope: Tree, file: Path) -> None:
    if isinstance(statement, ast.ImportFrom):
        _import(statement, scope, file)
    elif isinstance(statement, ast.Import):
        for module in statement.names:
            first = module.name.partition(".")[0]
            scope[module.asname or first] = Imported(module.name if module.asname else first)
    elif isinstance(statement, ast.FunctionDef):
        scope[statement.name] = statement
    elif isinstance(statement, ast.ClassDef):
        scope[statement.name] = UNKNOWN
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
        elsewhere = UNKNOWN if statement.level else Imported(f"{statement.module}.{one.name}")
        scope[one.asname or one.name] = source.get(one.name, elsewhere)


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
            _forget(function.value, scope)
            _set(scope, path, UNKNOWN)
    elif not (isinstance(function, ast.Name) and function.id in _KNOWN_CALLS):
        _forget(call, scope)
        for node in ast.walk(call):
            if isinstance(node, ast.Name) and node.id in scope:
                kept = isinstance(scope[node.id], ast.FunctionDef)
                scope[node.id] = scope[node.id] if kept else UNKNOWN
    elif any(keyword.arg in (None, TARGET) for keyword in call.keywords):
        raise NotPlainError("a function sets classes")


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
        if is_open(below):
            return
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    # a config keeps a copy of what is put below it
    tree[path[-1]] = copy.deepcopy(value) if len(path) > 1 else value


def _forget(node: ast.AST, scope: Tree) -> None:
    """Leave open what is named somewhere, under its other names too: it may be changed there."""
    if isinstance(node, ast.Name | ast.Attribute):
        with contextlib.suppress(NotPlainError):
            _open(_named(node, scope))
        function = scope.get(node.id) if isinstance(node, ast.Name) else None
        if isinstance(function, ast.FunctionDef):  # which may change whatever it names
            del scope[function.name]
            for part in ast.walk(function):
                if isinstance(part, ast.Name):
                    _forget(part, scope)
            scope[function.name] = function
        if isinstance(node, ast.Name) or not isinstance(node.value, ast.Call):
            return
    for part in ast.iter_child_nodes(node):
        _forget(part, scope)


def _open(value: Any) -> None:
    if isinstance(value, dict):
        for one in value.values():
            _open(one)
        value.clear()
        value[OTHERS] = UNKNOWN


def _value(node: ast.expr, scope: Tree) -> Any:
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, scope)
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Call):  # L(Class)(...)
            return _lazy(function, node, scope)
        if isinstance(function, ast.Name) and function.id == "dict":
            if node.args or any(one.arg is None for one in node.keywords):
                return UNKNOWN
            return {str(one.arg): _value(one.value, scope) for one in node.keywords}
        return _created(node, scope)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        if isinstance(node, _CONTAINERS):
            _forget(node, scope)
        return UNKNOWN


def _lazy(make: ast.Call, call: ast.Call, scope: Tree) -> Any:
    if call.args:
        return UNKNOWN
    known = isinstance(make.func, ast.Name) and scope.get(make.func.id) == Imported(_LAZY_CALL)
    found = {TARGET: _value(make.args[0], scope) if known and make.args else UNKNOWN}
    for one in call.keywords:
        value = _value(one.value, scope) if one.arg else UNKNOWN
        found[one.arg or OTHERS] = copy.deepcopy(value)
    return found


def _created(node: ast.Call, scope: Tree) -> Any:
    """Read `stock_config("...")` of detectron2's own files, and `OmegaConf.create()`."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "create" and not node.args:
        return {}
    named = isinstance(node.func, ast.Name) and node.func.id == _STOCK and node.args
    found = importlib.util.find_spec("detectron2") if named else None
    if found is None or found.origin is None or not isinstance(node.args[0], ast.Constant):
        _forget(node, scope)
        for part in ast.walk(node):  # which a function may change
            if isinstance(part, ast.Name) and isinstance(scope.get(part.id), dict):
                scope[part.id] = UNKNOWN
        return UNKNOWN
    return read_outline(Path(found.origin).parent / "model_zoo/configs" / str(node.args[0].value))


def _named(node: ast.expr, scope: Tree) -> Any:
    if isinstance(node, ast.Name):
        value = scope.get(node.id, UNKNOWN)
        return UNKNOWN if isinstance(value, ast.FunctionDef) else value
    assert isinstance(node, ast.Attribute)
    above = _value(node.value, scope)
    if isinstance(above, Imported):
        return Imported(f"{above.name}.{node.attr}")
    return above.get(node.attr, UNKNOWN) if isinstance(above, dict) else UNKNOWN
