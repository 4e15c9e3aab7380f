"""Flags, settings and other words in any order; weights that bring their config along."""

from pathlib import Path

import pytest

from eva_openmmlab import command_line
from eva_openmmlab.run_folder import write_record
from eva_report.demo_command import named_model

TASK, RECIPE = "segmentation", "demo/mask2former_eva_debug"


@pytest.fixture
def read():
    """Function: the words of an evaluation."""
    parser = command_line.test_parser(TASK, title="a segmentor", predictions="maps")
    parser.add_argument("--tta", action="store_true")
    return lambda *words: command_line.read(parser, words, check=lambda args: None)


@pytest.fixture
def run(tmp_path):
    """Folder of a run, with a config and a checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.py").write_text("model = dict()\n")
    (folder / "iter_3.pth").write_bytes(b"")
    write_record(folder, "mine.py")
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "RECIPE eva_debug --tta --work-dir out --cfg-options a=1 b.c=[2,3]",
        "--cfg-options a=1 b.c=[2,3] RECIPE eva_debug --tta --work-dir out",
        "--cfg-options a=1 --tta RECIPE b.c=[2,3] --work-dir out eva_debug",
        "a=1 RECIPE --work-dir=out b.c=[2,3] --weights eva_debug --tta",
    ],
)
def test_the_order_of_words_does_not_matter(read, line):
    args = read(*line.replace("RECIPE", RECIPE).split())
    assert (args.config.stem, args.weights, args.output) == (RECIPE[5:], "eva_debug", Path("out"))
    assert args.settings == {"a": "1", "b.c": "[2,3]"}
    assert args.flags.tta
    assert not args.of_run


def test_the_folder_of_a_run_and_its_checkpoints_bring_their_config(read, run):
    for place in (run, run / "iter_3.pth"):
        args = read(str(place))
        assert (args.config, args.weights, args.of_run) == (run / "mine.py", str(place), True)
        found = named_model([str(place), "a.jpg", "0"], task=TASK)
        assert found == (None, str(place), [Path("a.jpg"), Path("0")])
        assert named_model(["*.jpg"], task=TASK, weights=str(place))[1] == str(place)
    assert named_model([RECIPE, str(run), "a.jpg"], task=TASK)[0].stem == RECIPE[5:]
    assert named_model([RECIPE, "a.jpg"], task=TASK, weights=str(run))[0].stem == RECIPE[5:]
