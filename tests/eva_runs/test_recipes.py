"""Recipes are found by path and by name, in a checkout and in an installed package."""

from pathlib import Path

import pytest

from eva_runs import recipes
from eva_runs.recipes import (
    TASKS,
    find_recipe,
    list_recipes,
    name_on_own_data,
    recipe_folder,
)

ROOT = Path(__file__).parents[2]
DEBUG = "demo/cascade_mask_rcnn_vitdet_eva_debug"


@pytest.mark.parametrize("task", TASKS)
def test_every_recipe_of_a_checkout_has_a_name_and_a_summary(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list_recipes(task)
    assert found
    for recipe in found:
        assert recipe.path == ROOT / task / "configs" / f"{recipe.name}.py"
        assert recipe.summary
        assert "_base_" not in recipe.name
        assert "common/" not in recipe.name
        assert find_recipe(task, recipe.name) == recipe.path
        assert find_recipe(task, f"{task}/configs/{recipe.name}.py") == recipe.path


def test_a_file_that_exists_is_taken_as_it_is_given(tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text("config = None\n")
    assert find_recipe("video", own) == own
    monkeypatch.chdir(tmp_path)
    assert find_recipe("video", "own.py") == Path("own.py")


def test_an_installed_package_brings_its_recipes(tmp_path, monkeypatch):
    folder = tmp_path / "eva_recipes" / "clip"
    (folder / "_base_").mkdir(parents=True)
    (folder / "one.py").write_text('"""One.\n\nMore."""\n')
    (folder / "two.py").write_text("config = 1\n")
    (folder / "_base_" / "parent.py").write_text('"""Inherited."""\n')
    monkeypatch.setattr(recipes, "_PACKAGES", tmp_path)
    assert recipe_folder("clip") == folder
    assert [(one.name, one.summary) for one in list_recipes("clip")] == [
        ("one", "One."),
        ("two", ""),
    ]
    assert find_recipe("clip", "one") == folder / "one.py"
    assert list_recipes("video") == ()
    with pytest.raises(ValueError, match="'one'"):
        find_recipe("video", "one")


@pytest.mark.parametrize(
    ("recipe", "folder", "name"),
    [
        (f"detection:{DEBUG}", "coins (2)", "coins_2_eva_debug"),
        ("mmdetection:custom/cascade_mask_rcnn_eva_g_24gb", "münzen", "münzen_eva_g_24gb"),
        ("detection:upstream/mask_rcnn_vitdet_eva_g_1024", "it's [x]", "it_s_x_eva_g_1024"),
    ],
)
def test_a_run_on_own_data_is_named_by_both(recipe, folder, name, tmp_path):
    """No shell and no config reads the name in another way."""
    data, file = tmp_path / folder, find_recipe(*recipe.split(":"))
    (data / "annotations").mkdir(parents=True)
    for place in (data, data / "data.yaml", data / "annotations/train.json"):
        assert name_on_own_data(file, place) == name
    assert name_on_own_data(tmp_path / "mine.py", data) == ""
