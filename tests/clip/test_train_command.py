"""What is answered before torch is imported: data that are not there, and options without use."""

from dataclasses import replace

import pytest
from PIL import Image

from eva_contrastive.config import ContrastiveConfig
from eva_contrastive.evaluation.options import check_paths, parse
from eva_contrastive.train_command import _check
from eva_data.captions import early_check
from eva_engine.commands.training import load_recipe
from eva_engine.commands.training import parse as parse_training


@pytest.fixture
def config(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "all.toml").write_text("")
    Image.new("RGB", (8, 8)).save(tmp_path / "folder" / "a.png")
    for name, picture in ("pairs.csv", "a.png"), ("beside.csv", "folder/a.png"):
        (tmp_path / name).write_text(f"image,caption\n{picture},a dog\n")
    (tmp_path / "list.json").write_text('[{"image": "a.png", "caption": "a dog"}]')
    return load_recipe(recipe, ContrastiveConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "folder", "root": "x"}, "data.root=x has no effect on folder and .*pairs.tar: "),
        ({"image_column": "a"}, r"data.image_column=a has no effect on .*pairs.tar"),
        ({"train": "folder", "val": "", "caption_column": "a"}, "caption_column=a has no effect"),
        ({"train": "all.toml", "val": "", "image_column": "a"}, "image_column=a has no effect"),
        ({"train": "gone.csv"}, r"data.train: there is no gone.csv"),
        (
            {"train": "beside.csv", "image_column": "img"},
            r"has the columns image, caption: .*'img'",
        ),
        ({"train": "beside.csv", "root": "/nowhere"}, "there is none at /nowhere"),
        ({"train": "pairs.csv"}, "none of 1 pairs of pairs.csv can be read: .*root"),
        ({"train": "list.json"}, "none of 1 pairs of list.json can be read: .*root"),
        ({"train": "beside.csv", "val": "", "val_share": 0.5}, "data.val_share 0.5 of 1 samples"),
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
    _check(replace(config, data=replace(config.data, train="list.json", root="folder")))


def test_of_a_large_list_only_the_header_is_read(config, monkeypatch):
    monkeypatch.setattr(early_check, "_SMALL", 0)
    for name in "pairs.csv", "list.json":
        _check(replace(config, data=replace(config.data, train=name)))
    wrong = replace(config.data, train="pairs.csv", caption_column="text")
    with pytest.raises(ValueError, match=r"has the columns image, caption: .*'text'"):
        _check(replace(config, data=wrong))


def test_what_makes_no_pair_is_counted_once(config, tmp_path, caplog):
    """By the training, not by what looks at the list before it."""
    with (tmp_path / "beside.csv").open("a") as stream:
        stream.write("b.png,\n")
    _check(replace(config, data=replace(config.data, train="beside.csv")))
    assert not caplog.records


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
