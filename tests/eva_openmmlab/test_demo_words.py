"""How a user names a model and pictures."""

from pathlib import Path

import pytest

from eva_openmmlab.config.demo_words import config_and_weights, demo_parser, named_model

TASK = "segmentation"
RECIPE = "demo/mask2former_eva_debug"


@pytest.fixture
def run(tmp_path):
    """Folder of a run, with a config and a checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.py").write_text("model = dict()\n")
    (folder / "iter_3.pth").write_bytes(b"")
    return folder


def test_the_folder_of_a_run_and_its_checkpoints_bring_their_config(run):
    for place in (run, run / "iter_3.pth"):
        found = named_model([str(place), "a.jpg", "0"], task=TASK)
        assert found == (run / "mine.py", str(place), [Path("a.jpg"), Path("0")])
        assert config_and_weights(place, None, task=TASK) == (run / "mine.py", place)
    assert config_and_weights(run, "other.pth", task=TASK) == (run / "mine.py", "other.pth")


def test_a_config_is_followed_by_weights(run):
    config, weights, inputs = named_model([RECIPE, str(run), "a.jpg"], task=TASK)
    assert (config.name, weights, inputs) == ("mask2former_eva_debug.py", str(run), [Path("a.jpg")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([RECIPE], "name the weights of demo/mask2former_eva_debug behind it"),
        ([RECIPE, "photo.jpg"], "name the weights of demo/mask2former_eva_debug behind it"),
        ([RECIPE, "w.pth"], "name pictures behind w.pth"),
        (["mask2former_eva_debg", "w.pth", "a.jpg"], "there is no recipe 'mask2former_eva_debg'"),
        (["."], r"\. has no run with a saved config in it: name a config"),
    ],
)
def test_what_is_missing_is_named(words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        named_model(words, task=TASK)


def test_flags_stand_anywhere(run):
    parser = demo_parser("", "", task=TASK)
    words = ["--output", "out", str(run), "--overwrite", "a.jpg", "--device", "cpu", "b.jpg"]
    args = parser.parse_args(words)
    assert args.words == [str(run), "a.jpg", "b.jpg"]
    assert (args.output, args.overwrite, args.device) == (Path("out"), True, "cpu")
