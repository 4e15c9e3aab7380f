"""Arguments of classes, read off their source, are those that importing finds."""

import pytest
from detectron2.utils.registry import locate

from eva_detection.config.checks import _parameters
from eva_detection.config.outline import TARGET, Imported, read_outline
from eva_detection.config.signatures import arguments_of
from eva_runs.recipes import find_recipe, list_recipes

SOURCE = """
import os
from . import star
from .star import *
from .other import Renamed as Class
registry = object()
def plain(a, *, b=1): ...
def any_name(a, **rest): ...
@os.wraps
def wrapped(a): ...
@registry.register()
class Below(Class):
    def __init__(self, own, **rest): ...
class Same(Class): ...
class Mixed(Class, os.Other):
    def __init__(self, **rest): ...
if registry:
    def sometimes(a): ...
def twice(a): ...
def twice(b): ...
class Any(Unknown): ...
"""
OTHER = "class Renamed:\n    def __init__(self, size, *, rate=0): ...\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that would fail if it were imported."""
    folder = tmp_path / "never_imported"
    folder.mkdir()
    (folder / "__init__.py").write_text(f"{SOURCE}\n1 / 0\n")
    (folder / "star.py").write_text("def of_star(c): ...\n")
    (folder / "other.py").write_text(OTHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain", ("a", "b")),
        ("of_star", ("c",)),
        ("star.of_star", ("c",)),
        ("Class", ("size", "rate")),
        ("Below", ("own", "rest", "size", "rate")),
        ("Same", ("size", "rate")),
    ],
)
def test_plain_source(package, name, arguments):
    assert arguments_of(f"{package}.{name}") == arguments


@pytest.mark.parametrize(
    "name",
    ["any_name", "wrapped", "Mixed", "sometimes", "twice", "Any", "registry", "no", "a.b", "star"],
)
def test_on_doubt_nothing_is_said(package, name):
    assert arguments_of(f"{package}.{name}") is None


def test_what_is_not_a_package():
    assert arguments_of("os.path.join") is arguments_of("${x}") is arguments_of("") is None


def _targets(node):
    if isinstance(node, dict):
        if isinstance(node.get(TARGET), Imported):
            yield node[TARGET].name
        for value in node.values():
            yield from _targets(value)


def test_recipes_give_what_importing_gives():
    """Every class of every recipe: the same arguments, or nothing is said."""
    names = set()
    for recipe in list_recipes("detection"):
        names |= set(_targets(read_outline(find_recipe("detection", recipe.name))))
    assert len(names) > 30
    read = {name: known for name in names if (known := arguments_of(name)) is not None}
    assert {name: set(known) for name, known in read.items()} == {
        name: set(_parameters(locate(name))) for name in read
    }
    unsure = {name for name in names - read.keys() if _parameters(locate(name))}
    assert len(unsure) <= 2, unsure
