"""The wheel is the toolkit: built here, unpacked outside the checkout, used by `eva` alone."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("*/configs"))
LEFT_OUT = (".*", "tests", "output", "build", "dist", "*.egg-info", "__pycache__", "work_dirs")
# Editable installs of the checkout would be found before what is looked at.
START = """
import sys
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in repr(one).lower()]
"""
RECIPES = """
from detectron2.config import LazyConfig
from eva_runs.recipes import find_recipe
name = "custom/cascade_mask_rcnn_vitdet_eva_l_24gb"
assert LazyConfig.load(str(find_recipe("detection", name))).model
print(find_recipe("detection", "demo/cascade_mask_rcnn_vitdet_eva_debug"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy of the checkout: a build leaves files behind, and takes earlier ones."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    left_out = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(ROOT, source, ignore=left_out, dirs_exist_ok=True)
    old = source / "build" / "lib" / "eva_backbone" / "left_by_an_earlier_build.py"
    old.parent.mkdir(parents=True)
    old.touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    environment = os.environ | {"PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Function: run Python with the unpacked wheel in front of this environment's packages."""
    place = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    environment = os.environ | {"PYTHONPATH": str(place / "site")}

    def run(script, *arguments, cwd=place):
        command = [sys.executable, "-c", START + script, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture
def eva(installed, tmp_path):
    """Function: run `eva` of the wheel in an empty folder."""

    def run(*words):
        script = "from eva_command.main import main\nsys.exit(main())"
        return installed(script, *words, cwd=tmp_path)

    return run


def test_the_wheel_has_every_recipe_and_all_data_and_nothing_else(wheel):
    names = {*zipfile.ZipFile(wheel).namelist()}
    assert all(name.startswith("eva_") for name in names)
    wrong = ("__pycache__", "/tests/", "left_by_an_earlier_build")
    assert not [name for name in names if any(part in name for part in wrong)]
    for project in PROJECTS:
        folder = ROOT / project / "configs"
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert f"eva_recipes/{project}/{path.relative_to(folder).as_posix()}" in names
    for pattern in ("eva_*/**/*", "*/eva_*/**/*"):
        for path in ROOT.glob(pattern):
            above = path.relative_to(ROOT).parts
            if (
                path.is_file()
                and path.suffix != ".pyc"
                and not above[0].endswith(("tests", "build", ".egg-info"))
            ):
                inside = above if above[0].startswith("eva_") else above[1:]
                assert "/".join(inside) in names
    for file in (ROOT / "third_party").glob("*/*.*"):
        assert f"eva_recipes/third_party/{file.parent.name}/{file.name}" in names


def test_the_wheel_has_one_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("entry_points.txt")]
        assert archive.read(name).decode().split() == [
            "[console_scripts]", "eva", "=", "eva_command.main:main",
        ]  # fmt: skip


def relative_links(text):
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]


def test_links_of_the_description_lead_somewhere(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        found = Parser().parsestr(archive.read(name).decode())
    assert found["Description-Content-Type"] == "text/markdown"
    text = found.get_payload()
    assert "# EVA toolkit" in text
    assert relative_links(text) == []
    assert any(url.startswith("Paper, https://") for url in found.get_all("Project-URL"))


def test_recipes_are_listed_shown_and_copied(eva, tmp_path):
    listed = eva("recipes")
    for project in PROJECTS:
        assert f"{project}: " in listed
        assert f"eva_recipes/{project}\n" in listed
        assert str(ROOT) not in listed
    name = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    copies = eva("config", name, "--copy", "mine").split()
    assert copies[0] == f"mine/{name}.py"
    assert (tmp_path / "mine" / "common" / "data.py").is_file()
    assert "config = VideoConfig(" in eva("config", "own_videos")


@pytest.mark.slow
def test_relative_imports_and_bases_work_in_site_packages(installed):
    path = Path(installed(RECIPES).split()[-1])
    assert path.parts[-4:-1] == ("eva_recipes", "detection", "demo")


def test_demo_data_are_made(eva, tmp_path):
    sizes = ("--train", 2, "--val", 1, "--size", 64, "--workers", 1)
    assert "wrote 2 + 1 scenes" in eva("data", "make-demo", "--output", "demo", *sizes)
    assert (tmp_path / "demo" / "coco" / "annotations" / "instances_train.json").is_file()


@pytest.mark.parametrize("part", ["detectron2", "mmcv-operators"])
def test_a_part_would_be_built_from_the_wheel(part, eva):
    shown = eva("doctor", "--install", part, "--dry-run")
    assert f"site/eva_recipes/third_party/{part.replace('-', '_')}" in shown
    assert str(ROOT / "third_party") not in shown
