"""What is answered before torch is imported: data that are not there, and options without use."""

from dataclasses import replace

import pytest

from eva_contrastive.config import ContrastiveConfig
from eva_contrastive.evaluation.options import check_paths, parse
from eva_contrastive.train_command import _check
from eva_engine.commands.training import load_recipe
from eva_engine.commands.training import parse as parse_training


@pytest.fixture
def config(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("pairs.csv", "all.toml"):
        (tmp_path / name).write_text("")
    return load_recipe(recipe, ContrastiveConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "folder", "root": "x"}, "data.root=x has no effect on folder and .*pairs.tar: "),
        ({"image_column": "a"}, r"data.image_column=a has no effect on .*pairs.tar"),
        ({"train": "folder", "val": "", "caption_column": "a"}, "caption_column=a has no effect"),
        ({"train": "all.toml", "val": "", "image_column": "a"}, "image_column=a has no effect"),
        ({"train": "gone.csv"}, r"data.train: there is no gone.csv"),
    ],
)
def test_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        _check(replace(config, data=replace(config.data, **change)))


def test_what_one_of_both_needs(config):
    """The folder of a table's pictures beside shards for validation, the key of JSON in shards."""
    _check(replace(config, data=replace(config.data, train="pairs.csv", root="folder")))
    _check(replace(config, data=replace(config.data, caption_column="text")))
    _check(replace(config, data=replace(config.data, train="all.toml", root="folder")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pairs", "folder", "."), "--pairs: the folder . has no effect on folder: leave it out"),
        (("--pairs", "folder", "--caption-column", "a"), "--caption-column a has no effect"),
        (("--coco", "folder", "."), "--coco: the folder . has no effect on folder"),
    ],
)
def test_an_evaluation_that_is_refused(config, words, message):
    options = parse("clip/evaluate_zero_shot.py", ["--weights", "eva_debug", *words])
    with pytest.raises(ValueError, match=message):
        check_paths(options)


def test_what_the_command_line_gives_a_recipe_of_a_user(recipe, tmp_path, capsys):
    """Templates without classes, interpolation without a start: the recipe may be without them."""
    (tmp_path / "mine.py").write_text(
        "import runpy\nfrom dataclasses import replace\n"
        f"config = runpy.run_path({str(recipe)!r})['config']\n"
        "data = replace(config.data, val='', zero_shot='', templates=('a {}.',))\n"
        "model = replace(config.model, init_checkpoint='')\n"
        "run = replace(config.run, best_metric='top1')\n"
        "config = replace(config, data=data, model=model, run=run, interpolation=0.5)\n"
    )
    words = [str(tmp_path / "mine.py"), "data.zero_shot=x", "model.init_checkpoint=x"]
    found = parse_training(ContrastiveConfig, words, program="clip/train.py").config
    assert (found.data.zero_shot, found.interpolation) == ("x", 0.5)
    for given, refused in (words[1], "interpolation=0.5 needs"), (words[2], "no effect without"):
        with pytest.raises(SystemExit):
            parse_training(ContrastiveConfig, [words[0], given], program="clip/train.py")
        assert refused in capsys.readouterr().err
