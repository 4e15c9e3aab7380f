"""What the programs of the projects share: settings as text, recipes by name, missing files."""

import argparse
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import AnyOrderParser

RECIPE = "mask2former_eva_debug"


@pytest.fixture
def parser():
    """A parser with all shared flags."""
    parser = AnyOrderParser(prog="train.py")
    command_line.add_shared_arguments(parser, task="segmentation")
    command_line.add_training_arguments(parser)
    return parser


def test_settings_have_the_values_of_mmengines_own_flag(parser):
    words = ["a=1", "b.c=[1,(2,x)]", "d=1e-3", "e=None", "f=a=b", "g=true"]
    args = parser.parse_args([RECIPE, "--cfg-options", *words, "--cfg-options", "h=2,3"])
    theirs = argparse.ArgumentParser()
    theirs.add_argument("--cfg-options", nargs="+", action=DictAction)
    expected = theirs.parse_args(["--cfg-options", *words, "h=2,3"]).cfg_options
    assert command_line.values_of(args.cfg_options) == expected
    assert command_line.values_of(None) == {}


def test_a_setting_without_a_value_is_refused(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args([RECIPE, "--cfg-options", "a=1", "b"])
    assert "b: one word too many; settings are written KEY=VALUE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args([RECIPE, "--cfg-options=b"])
    assert "argument --cfg-options: must be KEY=VALUE, got b" in capsys.readouterr().err


def test_a_recipe_is_found_by_name_and_names_the_work_folder(parser):
    args = command_line.parse(parser, [RECIPE], task="segmentation")
    cfg = command_line.configure_training(args, lambda cfg, args: cfg)
    assert cfg.work_dir == f"work_dirs/{RECIPE}"
    assert cfg.model.decode_head.num_classes == 5
    args.train_images = Path("coins/images/train")
    cfg = command_line.configure_training(args, lambda cfg, args: cfg)
    assert cfg.work_dir == "work_dirs/coins_eva_debug"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mask2former_eva_debgu"], r"close to it: demo/mask2former_eva_debug"),
        ([RECIPE, "--data-root", "none"], "--data-root none is not a folder"),
    ],
)
def test_what_is_missing_ends_the_program_in_one_sentence(parser, words, message):
    with pytest.raises(SystemExit, match=f"^train.py: .*{message}"):
        command_line.parse(parser, words, task="segmentation")


def test_a_projects_own_check_is_part_of_it(parser):
    def refuse(args):
        raise ValueError(f"{args.config} lacks data")

    with pytest.raises(SystemExit, match=r"train.py: .*mask2former_eva_debug.py lacks data"):
        command_line.parse(parser, [RECIPE], task="segmentation", check=refuse)


def test_own_data_and_a_data_root_exclude_each_other(parser, tmp_path):
    args = command_line.parse(parser, [RECIPE, "--data-root", str(tmp_path)], task="segmentation")
    with pytest.raises(ValueError, match="has no use beside folders of your own data"):
        command_line.configure(args, lambda cfg, args: Config(cfg.to_dict()))


def test_missing_demo_data_are_named_with_the_command_that_makes_them(parser, tmp_path):
    missing = str(tmp_path / "digit_scenes_semantic" / "semantic")
    command = r"make it with `.*make.demo.* --formats semantic --output .*digit_scenes_semantic`"
    with pytest.raises(SystemExit, match=f"semantic is not a folder; {command}"):
        command_line.parse(parser, [RECIPE, "--data-root", missing], task="segmentation")


def test_the_folder_of_a_run_brings_its_config_along(tmp_path):
    """Also where it was moved: the evaluation lies below it."""
    scored = AnyOrderParser(prog="test.py")
    command_line.add_shared_arguments(scored, task="segmentation", scored=True)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(command_line.find_recipe("segmentation", RECIPE), run / "mine.py")
    text = (
        (run / "mine.py")
        .read_text()
        .replace(
            "../_base_", str(command_line.find_recipe("segmentation", RECIPE).parents[1] / "_base_")
        )
    )
    (run / "mine.py").write_text(text)
    (run / "iter_20.pth").write_bytes(b"")
    for weights in (run, run / "iter_20.pth"):
        args = command_line.parse(scored, [str(weights)], task="segmentation")
        assert args.config == str(run / "mine.py")
        cfg = command_line.configure_test(args, lambda cfg, args: cfg)
        assert cfg.load_from == str(weights)
        assert cfg.work_dir == str(run / "test")
    with pytest.raises(SystemExit, match=r"eva_debug is alone and not the folder of a run: name"):
        command_line.parse(scored, ["eva_debug"], task="segmentation")
