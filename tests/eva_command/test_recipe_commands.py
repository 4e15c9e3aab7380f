"""`eva recipes` and `eva config`: lists, and copies that work alone."""

import errno
from pathlib import Path

import pytest

from eva_command import recipe_copies
from eva_command.recipe_commands import config, recipes
from eva_command.recipe_copies import with_parents
from eva_data.files import UnwritableError, explained
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


@pytest.mark.parametrize(("task", "name"), OF_ALL, ids=lambda value: value)
def test_a_copy_has_all_that_the_recipe_inherits_from(task, name, tmp_path, capsys):
    assert config([name, "--task", task, "--copy", str(tmp_path / "mine")]) == 0
    copies = [Path(line) for line in capsys.readouterr().out.splitlines()]
    recipe = find_recipe(task, name)
    folder = ROOT / task / "configs"
    assert copies[0] == tmp_path / "mine" / recipe.relative_to(folder)
    for copy in copies:
        original = folder / copy.relative_to(tmp_path / "mine")
        assert copy.read_text() == original.read_text()
    assert {*with_parents(copies[0])} == {copy.resolve() for copy in copies}  # nothing outside


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


def test_nothing_is_replaced(tmp_path, capsys):
    """Not even when one file of several is there, and then none is written."""
    own = tmp_path / "common" / "optim.py"
    own.parent.mkdir()
    own.write_text("mine")
    arguments = ["demo/cascade_mask_rcnn_vitdet_eva_debug", "--copy", str(tmp_path)]
    assert config(arguments) == 2
    assert f"{own}: there already, and a copy never replaces" in capsys.readouterr().err
    assert own.read_text() == "mine"
    assert [*tmp_path.rglob("*.py")] == [own]


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
    assert "inherits from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["own_video"], "close to it: video/own_videos"),
        (["cascade_mask_rcnn_vitdet_eva_g_1280"], "recipes of detection are called"),
        (["x" * 40], "there is no recipe"),
        (["own_videos", "--task", "clip"], "there is no recipe 'own_videos' of clip"),
    ],
)
def test_a_wrong_name_is_a_sentence(arguments, sentence, capsys):
    assert config(arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_is_complete_or_not_there(there, tmp_path, monkeypatch, capsys):
    """On a full disk nothing of it stays, and what was there does."""
    mine = tmp_path / "mine"
    if there:
        mine.mkdir()
        (mine / "own.py").write_text("own")
    before = {*tmp_path.rglob("*")}
    write, count = recipe_copies.write_new, []

    def full(path, content):
        count.append(path)
        with explained(path):
            if len(count) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(recipe_copies, "write_new", full)
    name = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    assert config([name, "--copy", str(mine)]) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert len(count) == 3
    assert {*tmp_path.rglob("*")} == before
    monkeypatch.undo()
    assert config([name, "--copy", str(mine)]) == 0


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("own")
    with pytest.raises(UnwritableError, match=r"own\.py cannot be written: File exists"):
        recipe_copies.write_new(own, b"copy")
    assert own.read_text() == "own"
    with pytest.raises(TypeError):
        recipe_copies.write_new(tmp_path / "part.py", None)  # fails after the file was opened
    assert [*tmp_path.iterdir()] == [own]


def test_a_copy_that_is_killed_looks_like_none(tmp_path, monkeypatch):
    """A file appears when it is complete, and the recipe after all that it needs."""
    written = []

    def killed(path):
        (part,) = tmp_path.rglob("*.writing-*")
        written.append(part.name)
        assert {file for file in tmp_path.rglob("*.py") if not file.name.startswith(".")} == set()
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe_copies, "flush", killed)
    name = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    assert config([name, "--copy", str(tmp_path / "a")]) == 130
    assert len(written) == 1
    assert Path(name).name not in written[0]
