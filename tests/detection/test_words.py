"""The words of a command line in any order."""

import re

import pytest
from omegaconf import OmegaConf

from eva_detection.config.overrides import apply_overrides
from eva_detection.config.parser import make_parser

RECIPE = "demo/cascade_mask_rcnn_vitdet_eva_debug"


@pytest.mark.parametrize(
    "words",
    [
        f"--config-file {RECIPE} --resume --num-gpus 2 train.max_iter=3 a.b=-1",  # detectron2's
        f"train.max_iter=3 --config-file={RECIPE} a.b=-1 --num-gpus 2 --resume",
        f"{RECIPE} train.max_iter=3 --resume a.b=-1 --num-gpus=2",
        f"--resume train.max_iter=3 {RECIPE} a.b=-1 --num-gpus 2",
        f"{RECIPE} --config-file {RECIPE}.py --num-gpus 2 --resume train.max_iter=3 -- a.b=-1",
    ],
)
def test_any_order(words):
    args = make_parser().parse_args(words.split())
    assert args.config_file.removesuffix(".py") == RECIPE
    assert (args.resume, args.num_gpus, args.eval_only) == (True, 2, False)
    assert args.opts == ["train.max_iter=3", "a.b=-1"]


def test_further_forms_of_settings_and_numbers():
    words = ["~train.seed", "+a.b=c", "x=--resume", "runs/lr=3/config.yaml", "--machine-rank", "-1"]
    args = make_parser().parse_args(words)
    assert args.opts == ["~train.seed", "+a.b=c", "x=--resume"]
    assert args.config_file == "runs/lr=3/config.yaml"
    assert args.machine_rank == -1


def test_a_file_with_an_equals_sign_is_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3.yaml").touch()
    args = make_parser().parse_args(["lr=3.yaml", "a=" + "b" * 300])
    assert (args.config_file, len(args.opts)) == ("lr=3.yaml", 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train.max_iter=3 --reusme", "there is no flag --reusme; close to it: --resume"),
        (
            "--train-annotation=a.json --eval-onyl",
            "no flag --train-annotation; close to it: --train-annotations",
        ),
        ("-x a=1", "there is no flag -x\n"),
        ("--train.max_iter=3", "settings are written without dashes: train.max_iter=3"),
        (f"{RECIPE} train.max_iter 3", "several recipes; settings are written KEY=VALUE"),
        (f"{RECIPE} --config-file coco/other", "two recipes are given, demo/.* and --config-file"),
        ("a=1 --config-file", "argument --config-file: expected one argument"),
    ],
)
def test_a_slip_is_an_error(words, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args(words.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, "one sentence"
    assert re.search(sentence, error), error


def test_a_run_in_place_of_a_recipe_is_evaluated_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "config.yaml").touch()
    args = make_parser().parse_args([str(tmp_path), "--eval-only", "a=b"])
    assert args.config_file == str(tmp_path / "config.yaml")
    places = [f"train.init_checkpoint={tmp_path}", f"train.output_dir={tmp_path}/evaluation"]
    assert args.opts == ["a=b", *places]
    args = make_parser().parse_args([str(tmp_path), "--eval-only", "train.output_dir=x"])
    assert args.opts == ["train.output_dir=x", places[0]]
    assert make_parser().parse_args([str(tmp_path), "--resume"]).opts == []


@pytest.mark.parametrize("name", ["münzen (2)", "it's", "a,b", "[x]", "a=b", "{x}", "e\\", "~1 #"])
def test_folders_of_any_name(tmp_path, name):
    """Of a run that is evaluated, and of a run on own data."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.yaml").touch()
    run = make_parser().parse_args([str(tmp_path / name), "--eval-only"])
    cfg = OmegaConf.create({"train": {"init_checkpoint": "", "output_dir": ""}})
    apply_overrides(cfg, run.opts)
    assert cfg.train.init_checkpoint == str(tmp_path / name)
    assert cfg.train.output_dir == f"{tmp_path / name}/evaluation"
