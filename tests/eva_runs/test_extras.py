"""What is not installed is one sentence, with the command that installs it."""

import ast
import contextlib
import functools
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eva_runs.commands import Command, run_function
from eva_runs.extras import TASK_OF, install_command

ROOT = Path(__file__).parents[2]
# extras of their own
IF_WANTED = {"onnx", "onnx_ir", "onnxruntime", "onnxscript", "wandb", "huggingface_hub"}
PROGRAM = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {gone}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
for name in [*sys.modules]:
    if name.partition(".")[0] in {gone}:
        del sys.modules[name]
from eva_command.main import main
sys.exit(main({arguments}))
"""


DATA = "folder with data"


@pytest.fixture
def without(run_started):
    """Function: run `eva` where some packages are not installed."""

    def run(gone, *arguments):
        script = PROGRAM.format(gone=set(gone), arguments=list(map(str, arguments)))
        return run_started("-c", script, folder=Path.cwd())

    return run


def _main(arguments=None):
    raise ModuleNotFoundError("No module named 'lvis'", name="lvis")


def test_a_program_ends_with_the_sentence(capsys):
    with pytest.raises(SystemExit, match="1"):
        run_function(f"{__name__}:_main")
    assert "lvis is not installed; this installs it: pip install" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        Command("error", list, _main)([])
    assert "lvis is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gone", "arguments", "sentence"),
    [
        (
            ["detectron2"],
            ["detection", "train", "--config-file", "demo/cascade_mask_rcnn_vitdet_eva_debug"],
            "eva detection train: detectron2 is not installed; this installs it: "
            "eva doctor --install detectron2\n",
        ),
        (  # of the extra of segmentation all is there, and mmengine quotes only its own error
            ["hotcoco"],
            ["mmdetection", "train", "demo/cascade_mask_rcnn_eva_debug", "--data-root", DATA],
            "eva mmdetection train: hotcoco is not installed; this installs it: "
            "pip install 'eva-toolkit[mmdetection]'\n",
        ),
    ],
)
def test_a_command_without_its_framework(without, gone, arguments, sentence, tmp_path):
    for name in ("train", "val", "annotations"):
        (tmp_path / name).mkdir()
    for part in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{part}.json").write_text("{}")
        (tmp_path / part / "1.jpg").touch()
    done = without(gone, *(tmp_path if one == DATA else one for one in arguments))
    assert done.returncode == 1
    assert done.stderr.endswith(sentence)
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def distributions():
    """Name of a package -> distributions that bring it."""
    return metadata.packages_distributions()


@functools.cache
def _requirements(name):
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.requires(name) or []
    return []


@functools.cache
def _parsed(path):
    return ast.parse(path.read_text())


def _needed(extra, settings):
    """What an extra installs: its requirements, and theirs, as far as they are installed here."""
    tables = settings["optional-dependencies"]
    waiting = [*settings["dependencies"], *(tables[extra] if extra else ())]
    found = set()
    while waiting:
        one = Requirement(waiting.pop())
        name = canonicalize_name(one.name)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        if name == "eva-toolkit":
            waiting += [text for other in one.extras for text in tables[other]]
        elif name not in found:
            found.add(name)
            waiting += _requirements(name)
    return found


def _imported(package):
    """Packages of others that the modules of a project import, on top or where they are used."""
    for path in package.rglob("*.py"):
        for node in ast.walk(_parsed(path)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


@functools.cache
def _file_of(module):
    """File of a module of ours, or None."""
    tops = (ROOT, *ROOT.glob("[a-z]*"))
    ends = (f"{module.replace('.', '/')}{end}" for end in (".py", "/__init__.py"))
    places = (top / end for end in ends for top in tops)
    return next((place for place in places if place.is_file()), None)


def _loaded(module, seen):
    """Packages of others that come with a module of ours, and ours that it imports on top."""
    if module in seen or _file_of(module) is None:
        return
    seen.add(module)
    for node in _parsed(_file_of(module)).body:
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for one in names:
            if one.startswith("eva_"):
                yield from _loaded(one, seen)
            else:
                yield one.partition(".")[0]


def test_the_extra_of_a_project_has_all_that_it_imports_and_what_comes_with_it(distributions):
    """pycocotools came with a writer of label tools that all demos share."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for project, extra in TASK_OF.items():
        (package,) = [one for one in ROOT.glob(f"*/{project}") if (one / "__init__.py").is_file()]
        needed, own = _needed(extra, settings), {*_imported(package)}
        names, seen = {*own}, set()
        for path in package.rglob("*.py"):
            parts = path.relative_to(package.parent).with_suffix("").parts
            names |= {*_loaded(".".join(parts), seen)}
        names = {one for one in names if not one.startswith("eva_")}
        for name in names - {*sys.stdlib_module_names, "detectron2"} - IF_WANTED:
            providers = {canonicalize_name(one) for one in distributions[name]}
            assert providers & needed, (project, name)
            assert name not in own or install_command(name, project) is not None, name
