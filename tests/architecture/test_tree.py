"""The rules of CONTRIBUTING.md that a program can check, over every file of the repository."""

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent for path in ROOT.glob("*/configs"))
HIDDEN = {".venv", "output", "build", "dist"}


def _files(suffix, below=ROOT):
    return sorted(
        path
        for path in below.rglob(f"*{suffix}")
        if not any(part in HIDDEN or part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


PACKAGES = sorted(
    path.parent
    for pattern in ("eva_*/__init__.py", "*/eva_*/__init__.py")
    for path in ROOT.glob(pattern)
)
MODULES = [
    path for package in PACKAGES for path in _files(".py", package) if path.name != "__init__.py"
]


def _name(path):
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_look_at():
    assert {package.name for package in PACKAGES} >= {"eva_backbone", "eva_data", "eva_engine"}
    assert len(PROJECTS) >= 4
    assert len(MODULES) > 100


def test_mypy_is_given_every_file():
    """`make check` runs mypy on the packages, and then on all that is in none of them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    given = [ROOT / name for name in settings["tool"]["mypy"]["files"]]
    shown = subprocess.run(
        ["make", "-n", "check"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    for command in shown.stdout.replace("&&", "\n").splitlines():
        if " -m mypy --explicit-package-bases " in command:
            names = command.partition(" --explicit-package-bases ")[2]
            given += [path for name in shlex.split(names) for path in ROOT.glob(name)]
    unseen = [
        _name(path)
        for path in _files(".py")
        if not any(path == one or one in path.parents for one in given)
    ]
    assert unseen == []


@pytest.mark.parametrize("folder", [*PROJECTS, ROOT / "tools", ROOT / "tests"], ids=_name)
def test_generic_folders_are_not_packages(folder):
    """A bare `clip/` would shadow another package of that name."""
    assert not (folder / "__init__.py").exists()


def _calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


def test_no_file_is_unpickled_and_no_search_path_edited():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for call in _calls(tree, "torch.load"):
            arguments = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert arguments.get("weights_only") == "True", _name(path)
        for attribute in (node for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
            assert ast.unparse(attribute) != "sys.path", _name(path)


def test_documents_name_files_that_exist():
    """Links (of the first page of the site as its root has them), and paths in backticks."""
    folders = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir()))
    path_of = re.compile(rf"`((?:{folders})/[\w./-]+\.(?:py|md|toml|json|sh))`")
    missing = []
    for document in _files(".md"):
        text = document.read_text(encoding="utf-8")
        folder = ROOT if document.parent.name == "site" else document.parent
        named = [ROOT / name for name in path_of.findall(text)]
        named += [
            folder / link.partition("#")[0]
            for link in re.findall(r"\]\(([^)\s]+)\)", text)
            if not re.match(r"[a-z]+:|#", link)
        ]
        missing += [f"{_name(document)}: {path}" for path in named if not path.exists()]
    missing = [line for line in missing if "/output/" not in line and not line.endswith("/zoo.md")]
    assert missing == []


@pytest.mark.parametrize("package", ["opencv-python", "opencv-python-headless"])
def test_opencv_is_bounded_where_mmdetection_comes_with_it(package):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, wanted in extras["optional-dependencies"].items():
        if any(one.startswith("onedl-") for one in wanted):
            assert any(re.match(rf"{package}>.*<", one) for one in wanted), extra
