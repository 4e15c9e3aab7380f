"""Arguments of classes and functions, read off their source: their modules are not imported.

What is not plain there, such as a base class of unknown kind, is left to `config.checks`, which
imports.
"""

import ast
import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eva_detection.config.names import PASSED_ON

_DEEPEST = 12  # names that stand for names, and classes below classes
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While, ast.Match)


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path

    @property
    def package(self) -> str:
        return self.name if self.file.stem == "__init__" else self.name.rpartition(".")[0]


@functools.cache
def arguments_of(name: str) -> tuple[str, ...] | None:
    """List the arguments of a class or function.

    Args:
        name: Its name with that of a module, which may import it from another.

    Returns:
        The names; None if it takes any, or its source does not say.
    """
    try:
        found = _find(name, 0)
        return None if found is None else _arguments(*found, 0) or None
    except (OSError, SyntaxError, ValueError, ImportError, RecursionError):
        return None


Found = tuple[ast.AST, _Module]


def _find(name: str, depth: int) -> Found | None:
    """Find a definition: the module is the longest part of the name that is a file."""
    module, rest = _module_of(name)
    if module is None or len(rest) != 1 or depth > _DEEPEST:
        return None
    return _in_module(rest[0], module, depth)


def _module_of(name: str) -> tuple[_Module | None, Sequence[str]]:
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first) if first.isidentifier() else None
    if spec is None or not spec.origin or not spec.origin.endswith("__init__.py"):
        return None, rest
    module = _Module(first, Path(spec.origin))
    while rest and module.file.stem == "__init__":
        inside = [module.file.with_name(f"{rest[0]}.py"), module.file.parent / rest[0]]
        files = [one / "__init__.py" if one.suffix != ".py" else one for one in inside]
        file = next(filter(Path.is_file, reversed(files)), None)
        # of a module and what a package calls by its name, the latter is meant
        if file is None or (len(rest) == 1 and _bound(rest[0], _tree(module.file).body)):
            break
        module = _Module(f"{module.name}.{rest.pop(0)}", file)
    return module, rest


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def _in_module(name: str, module: _Module, depth: int) -> Found | None:
    body = _tree(module.file).body
    binding = _bound(name, body)
    if len(binding) > 1 or depth > _DEEPEST:
        return None
    if not binding:
        stars = [one for one in body if isinstance(one, ast.ImportFrom) and _is_star(one)]
        found = [_find(f"{_source(one, module)}.{name}", depth + 1) for one in stars]
        there = [one for one in found if one is not None]
        return there[0] if len(there) == 1 else None
    (one,) = binding
    if isinstance(one, ast.ImportFrom):
        origin = next(part.name for part in one.names if (part.asname or part.name) == name)
        return _find(f"{_source(one, module)}.{origin}", depth + 1)
    return (one, module) if isinstance(one, (*_FUNCTIONS, ast.ClassDef)) else None


def _is_star(statement: ast.ImportFrom) -> bool:
    return any(one.name == "*" for one in statement.names)


def _source(statement: ast.ImportFrom, module: _Module) -> str:
    above = module.package.split(".")
    above = above[: len(above) - statement.level + 1] if statement.level else []
    return ".".join([*above, *([statement.module] if statement.module else [])])


def _bound(name: str, body: Sequence[ast.stmt]) -> list[ast.AST]:
    """List the statements that give a name a meaning, those in blocks too."""
    found: list[ast.AST] = []
    for one in body:
        if isinstance(one, (*_FUNCTIONS, ast.ClassDef)):
            found += [one] if one.name == name else []
        elif isinstance(one, ast.Import | ast.ImportFrom):
            names = (part.asname or part.name.partition(".")[0] for part in one.names)
            found += [one] if name in names else []
        elif isinstance(one, ast.If) and _is_for_types(one.test):  # imports that come later
            found += _bound(name, [*one.body, *one.orelse])
        elif isinstance(one, _BLOCKS):  # whatever is in there: it is not plain
            found += [one, one] if name in _names_in(one) else []
        elif any(isinstance(part, ast.Name) and part.id == name for part in _targets(one)):
            found.append(one)
    return found


def _is_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _names_in(block: ast.AST) -> set[str]:
    names = set()
    for one in ast.walk(block):
        if isinstance(one, ast.Name):
            names.add(one.id)
        elif isinstance(one, ast.alias):
            names.add(one.asname or one.name.partition(".")[0])
        elif isinstance(one, (*_FUNCTIONS, ast.ClassDef)):
            names.add(one.name)
    return names


def _targets(statement: ast.stmt) -> list[ast.expr]:
    single = getattr(statement, "target", None)
    targets = [*getattr(statement, "targets", ()), *([single] if single is not None else [])]
    return [part for one in targets for part in getattr(one, "elts", [one])]


def _arguments(node: ast.AST, module: _Module, depth: int) -> tuple[str, ...] | None:
    if isinstance(node, ast.FunctionDef):
        if not all(map(_keeps_arguments, node.decorator_list)):
            return None
        if node.args.kwarg is None:
            return _names(node.args)
        rest = arguments_of(PASSED_ON.get(f"{module.name}.{node.name}", ""))
        return None if rest is None else (*_names(node.args), *rest)
    if not isinstance(node, ast.ClassDef) or depth > _DEEPEST:
        return None
    registered = all(_registers(one) for one in node.decorator_list)
    if not registered or node.keywords or any(isinstance(one, _BLOCKS) for one in node.body):
        return None
    made = _bound("__init__", node.body)
    if len(made) > 1 or _bound("__new__", node.body):
        return None
    names: tuple[str, ...] = ()
    if made:
        (create,) = made
        if not isinstance(create, ast.FunctionDef):
            return None
        if not all(map(_keeps_arguments, create.decorator_list)):
            return None
        names = _names(create.args)
        if create.args.kwarg is None:
            return names
    # what is not among them goes to the base class
    if len(node.bases) != 1:
        return None
    base = _base(node.bases[0], module, depth)
    above = None if base is None else _arguments(*base, depth + 1)
    return None if above is None else (*names, *above)


def _names(arguments: ast.arguments) -> tuple[str, ...]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return tuple(one.arg for one in named if one.arg != "self")


def _keeps_arguments(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "configurable"  # detectron2's


def _registers(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr == "register"


def _base(node: ast.expr, module: _Module, depth: int) -> Found | None:
    """Find the definition of a base class, which is written as `Name` or `module.Name`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if not parts:
        return _in_module(node.id, module, depth + 1)
    binding = _bound(node.id, _tree(module.file).body)
    statement = binding[0] if len(binding) == 1 else None
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return None
    for one in statement.names:
        if isinstance(statement, ast.ImportFrom) and (one.asname or one.name) == node.id:
            return _find(".".join([_source(statement, module), one.name, *parts]), depth + 1)
        if isinstance(statement, ast.Import) and one.asname == node.id:
            return _find(".".join([one.name, *parts]), depth + 1)
        if isinstance(statement, ast.Import) and one.name == node.id:
            return _find(".".join([one.name, *parts]), depth + 1)
    return None
