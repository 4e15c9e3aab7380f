"""Flags, settings and other words in any order; a slip is answered with what is close to it."""

import argparse

import pytest

from eva_openmmlab.config import command_line
from eva_openmmlab.config.words import AnyOrderParser


@pytest.fixture
def parser():
    """The words of an evaluation."""
    parser = AnyOrderParser(prog="test.py")
    command_line.add_shared_arguments(parser, task="segmentation", scored=True)
    parser.add_argument("--tta", action="store_true")
    return parser


@pytest.mark.parametrize(
    "line",
    [
        "recipe run --tta --work-dir out --cfg-options a=1 b.c=[2,3]",
        "--cfg-options a=1 b.c=[2,3] recipe run --tta --work-dir out",
        "--cfg-options a=1 --tta recipe b.c=[2,3] --work-dir out run",
        "a=1 recipe --work-dir=out b.c=[2,3] run --tta",
        "--cfg-options=a=1 recipe --cfg-options b.c=[2,3] --work-dir out --tta run",
        "a=1 --tta --work-dir out b.c=[2,3] -- recipe run",
    ],
)
def test_the_order_of_words_does_not_matter(parser, line):
    args = parser.parse_args(line.split())
    assert (args.config, args.source, args.tta, args.work_dir) == ("recipe", "run", True, "out")
    assert args.cfg_options == {"a": "1", "b.c": "[2,3]"}


def test_a_file_with_an_equals_sign_is_a_file(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1.pth").touch()
    assert parser.parse_args(["recipe", "lr=0.1.pth"]).source == "lr=0.1.pth"
    long = "lr=" + "1" * 300  # no file can have that name
    assert parser.parse_args(["recipe", "run", long]).cfg_options == {"lr": "1" * 300}
    named = parser.parse_args(["recipe", "run", "--cfg-options", "lr=0.1.pth"])
    assert named.cfg_options == {"lr": "0.1.pth"}
    assert parser.parse_args(["recipe", "runs/lr=0.1/best.pth"]).source == "runs/lr=0.1/best.pth"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("recipe run --work-dri out", "there is no flag --work-dri; close to it: --work-dir"),
        ("recipe run --zzz", "there is no flag --zzz\n"),
        ("recipe run -x", "there is no flag -x\n"),
        ("recipe run --train_cfg.x=3", "settings are written without dashes: train_cfg.x=3"),
        ("recipe run a b", "a b: one word too many; settings are written KEY=VALUE"),
        ("recipe run --work-dir", "argument --work-dir: expected one argument"),
        ("recipe run --l none", "there is no flag --l"),
    ],
)
def test_a_slip_is_named_with_what_it_may_have_been(parser, line, message, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(line.split())
    assert message in capsys.readouterr().err


def test_without_settings_every_other_word_has_its_place():
    parser = AnyOrderParser(prog="demo.py")
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--count", type=int)
    args = parser.parse_args(["a=1.jpg", "--count", "-2", "b.jpg"])
    assert args == argparse.Namespace(inputs=["a=1.jpg", "b.jpg"], count=-2)
