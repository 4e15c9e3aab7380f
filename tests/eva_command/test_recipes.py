"""`eva recipes` and `eva config`: lists, and copies that work alone."""

from pathlib import Path

import pytest

from eva_command.recipes import config, recipes, with_parents
from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig
from eva_runs.recipes import TASKS, find_recipe, list_recipes

ROOT = Path(__file__).parents[2]
OF_ALL = [(task, recipe.name) for task in TASKS for recipe in list_recipes(task)]


def test_all_recipes_are_listed(capsys):
    assert recipes([]) == 0
    out = capsys.readouterr().out
    for task, name in OF_ALL:
        assert f"{task}: " in out
        assert f"  {name}" in out
    assert "29.6 million images" in out  # a manifest in TOML
    assert recipes(["clip"]) == 0
    assert "own_videos" not in capsys.readouterr().out


def test_a_copy_has_all_that_the_recipe_inherits_from(tmp_path, capsys):
    for number, (task, name) in enumerate(OF_ALL):
        mine = tmp_path / str(number)
        assert config([name, "--task", task, "--copy", str(mine)]) == 0
        copies = [Path(line) for line in capsys.readouterr().out.splitlines()]
        folder = ROOT / task / "configs"
        assert copies[0] == mine / find_recipe(task, name).relative_to(folder)
        for copy in copies:
            assert copy.read_text() == (folder / copy.relative_to(mine)).read_text()
        assert {*with_parents(copies[0])} == {copy.resolve() for copy in copies}  # none outside


def test_a_copy_is_loaded_alone(tmp_path):
    """With the manifest that it names."""
    name = "eva_l_patch14_224_in21k_150ep"
    assert config([name, "--copy", str(tmp_path)]) == 0
    copied = load_recipe(tmp_path / f"{name}.py", PretrainConfig)
    assert copied.student == load_recipe(find_recipe("pretrain", name), PretrainConfig).student
    config(["eva_g_patch14_224_merged30m_150ep", "--copy", str(tmp_path / "g")])
    own = load_recipe(tmp_path / "g" / "eva_g_patch14_224_merged30m_150ep.py", PretrainConfig)
    assert own.data.train == str(tmp_path / "g" / "merged30m.toml")
    assert Path(own.data.train).is_file()


def test_without_a_folder_it_is_shown(capsys):
    assert config(["own_videos"]) == 0
    out = capsys.readouterr().out
    path = find_recipe("video", "own_videos")
    assert out == f"# {path}\n{path.read_text()}"
    assert config(["segmentation/demo/upernet_eva_debug"]) == 0
    assert "# inherits from " in capsys.readouterr().out


def test_a_file_of_ones_own_is_copied_with_its_parents(tmp_path, capsys):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "parent.yaml").write_text("A: 1\n")
    own = tmp_path / "runs" / "own.yaml"
    own.parent.mkdir()
    own.write_text('_BASE_: "../base/parent.yaml"\n')
    assert config([str(own), "--task", "detection", "--copy", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "runs" / "own.yaml").is_file()
    assert (tmp_path / "copy" / "base" / "parent.yaml").is_file()
    (tmp_path / "base" / "parent.yaml").unlink()
    assert config([str(own), "--task", "detection", "--copy", str(tmp_path / "b")]) == 2
    assert "parent.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["own_video"], "own_video"),
        (["cascade_mask_rcnn_vitdet_eva_g_1280"], "recipes of detection are called"),
        (["x" * 40], "there is no recipe"),
        (["own_videos", "--task", "clip"], "own_videos"),
    ],
)
def test_a_wrong_name_is_a_sentence(arguments, sentence, capsys):
    assert config(arguments) == 2
    assert sentence in capsys.readouterr().err
