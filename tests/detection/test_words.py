"""The words of a command line in any order."""

import re

import pytest

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
