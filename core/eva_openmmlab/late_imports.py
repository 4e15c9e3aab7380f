"""What mmseg and mmdet did without because they were imported before the stand-in was in place.

Both swallow a failed import of mmcv's operations: a name becomes None, a function that raises, or
an empty base class, and their messages then ask for packages that are installed. Here the imports
that a loaded module has in a `try` are made up for, so that the order of imports does not matter.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_ROOTS = ("mmcv", "mmdet")  # what the swallowed imports name
# in this order: mmdet takes a name of mmcv's bricks, and mmseg one of mmdet's heads
_LOADED = ("mmcv.cnn.bricks.", "mmdet.", "mmseg.")


def make_up_for() -> list[str]:
    """Bind the names that loaded modules wanted, also as base classes of their classes.

    Returns:
        `module.name` of all that changed.
    """
    changed = []
    for prefix in _LOADED:
        for name, module in sorted(sys.modules.items()):
            if name.startswith(prefix) and isinstance(module, ModuleType):
                changed += [f"{name}.{bound}" for bound in _bind(module)]
    return changed


def _bind(module: ModuleType) -> list[str]:
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        return []
    text = Path(file).read_text(encoding="utf-8")
    if "except ImportError" not in text and "except ModuleNotFoundError" not in text:
        return []
    tree = ast.parse(text)
    changed = []
    for wanted, alias in _swallowed(tree):
        try:
            value = getattr(importlib.import_module(wanted), alias.name)
        except (ImportError, AttributeError):
            continue  # missing for another reason
        bound = alias.asname or alias.name
        if getattr(module, bound, None) is not value:
            setattr(module, bound, value)
            changed.append(bound)
    if changed:
        _replace_bases(module, tree, changed)
    return changed


def _swallowed(tree: ast.Module) -> Iterator[tuple[str, ast.alias]]:
    """Yield module and name of each import from mmcv or mmdet in a `try` of a module."""
    for node in tree.body:
        for step in node.body if isinstance(node, ast.Try) else ():
            wanted = step.module or "" if isinstance(step, ast.ImportFrom) else ""
            if wanted.partition(".")[0] in _ROOTS:  # a relative one has a name of the package
                yield from ((wanted, alias) for alias in getattr(step, "names", ()))


def _replace_bases(module: ModuleType, tree: ast.Module, names: list[str]) -> None:
    """Give classes that were made on a substitute the base class that they name.

    The class stays the same object: registries, packages and users that hold it have it complete.
    """
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not hasattr(module, node.name):
            continue
        named = [base.id if isinstance(base, ast.Name) else "" for base in node.bases]
        if set(named) & set(names):
            kind = getattr(module, node.name)
            kind.__bases__ = tuple(
                getattr(module, name) if name in names else base
                for name, base in zip(named, kind.__bases__, strict=True)
            )
