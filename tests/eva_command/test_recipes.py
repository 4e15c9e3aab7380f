"""`eva recipes` and `eva config`: lists, and copies that work alone."""

from pathlib import Path

import pytest

from eva_command.recipes import config, with_parents
from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig
from eva_runs.recipes import TASKS, find_recipe, list_recipes

ROOT = Path(__file__).parents[2]
OF_EACH_FOLDER = {
    recipe.path.parent: (task, recipe.name) for task in TASKS for recipe in list_recipes(task)
}


def test_a_copy_has_all_that_the_recipe_inherits_from(tmp_path, capsys):
    for number, (task, name) in enumerate(OF_EACH_FOLDER.values()):
        mine = tmp_path / str(number)
        assert config([name, "--task", task, "--copy", str(mine)]) == 0
        copies = [Path(line) for line in capsys.readouterr().out.splitlines()]
        folder = ROOT / task / "configs"
        assert copies[0] == mine / find_recipe(task, name).relative_to(folder)
        for copy in copies:
            assert copy.read_text() == (folder / copy.relative_to(mine)).read_text()
        assert {*with_parents(copies[0])} == {copy.resolve() for copy in copies}  # none outside
    copies[0].write_text("# mine")
    with pytest.raises(SystemExit, match="1"):
        config([name, "--task", task, "--copy", str(mine)])
    assert copies[0].read_text() == "# mine"


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
    with pytest.raises(SystemExit, match="1"):
        config([str(own), "--task", "detection", "--copy", str(tmp_path / "b")])
    assert "parent.yaml" in capsys.readouterr().err
