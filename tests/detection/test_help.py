"""`--help` of every program answers before anything heavy is imported; options as detectron2's."""

import argparse
import subprocess
import sys

import pytest
from detectron2.engine import default_argument_parser

from eva_detection.config.parser import make_parser
from eva_detection.training import command

HEAVY = ("torch", "detectron2", "omegaconf", "cv2", "matplotlib", "eva_backbone.vit")


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("eva_detection.training.command", "--train-annotations"),
        ("eva_detection.inference.demo", "--score-threshold"),
        ("eva_detection.inference.export", "--format"),
        ("eva_detection.quickstart", "--fresh"),
        ("eva_detection.evaluation.submission", "check"),
        ("eva_detection.evaluation.coco_lvis_gap", "subset"),
    ],
)
def test_help_imports_nothing_heavy(help_of, module, named):
    assert named in help_of(module, *HEAVY)


def test_the_check_of_annotations_imports_nothing_heavy(repository):
    """Its parser belongs to `verify_data.py`, which takes arguments in another way."""
    script = (
        "import argparse, sys; from eva_data.detection.verify import add_arguments\n"
        "parser = argparse.ArgumentParser(); add_arguments(parser); parser.format_help()\n"
        f"sys.exit(' '.join(set({HEAVY}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def _options(parser: argparse.ArgumentParser):
    return {
        (*action.option_strings, action.dest): (
            type(action), action.default, action.type, action.nargs, action.const
        )
        for action in parser._actions
    }  # fmt: skip


def test_the_options_are_those_of_detectron2_and_more():
    ours, stock = _options(make_parser()), _options(default_argument_parser())
    assert {name: ours[name] for name in stock} == stock
    more = {name[0] for name in ours.keys() - stock.keys()}
    assert more == {
        "--train-annotations", "--train-images", "--val-annotations", "--val-images",
        "--boxes-only", "--data", "--no-download", "--scale-lr", "--val-fraction",
        "--weights",
    }  # fmt: skip


def test_arguments_are_passed_on(monkeypatch):
    """`main(arguments)`: for callers such as the command `eva`."""
    from eva_detection.training import train

    started = []
    monkeypatch.setattr(train, "start", started.append)
    monkeypatch.setattr(command, "check_early", lambda args: None)
    command.main(["--config-file", "recipe", "--eval-only", "train.max_iter=3", "model.x=1"])
    (args,) = started
    assert (args.config_file, args.eval_only) == ("recipe", True)
    assert args.opts == ["train.max_iter=3", "model.x=1"]
