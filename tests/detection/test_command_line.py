"""The command lines: words in any order, and what is checked before torch is imported."""

from pathlib import Path

import pytest

from eva_data.detection.request import DataRequest
from eva_detection.command_line import check, parse

DEMO = "demo/cascade_mask_rcnn_vitdet_eva_debug"


@pytest.fixture
def look(monkeypatch, tmp_path):
    """Function: check a command line in an empty folder, where no data and no weights are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path / "weights"))
    return lambda *words: check(parse(words))


def test_recipe_flags_and_settings_stand_in_any_order():
    words = [DEMO, "--num-gpus", "2", "train.max_iter=3", "--resume", "optimizer.lr=1"]
    for order in (words, words[3:] + words[:3], ["--config-file", *words]):
        request = parse(order)
        assert (request.recipe, request.num_gpus, request.resumes) == (DEMO, 2, True)
        assert sorted(request.overrides) == ["optimizer.lr=1", "train.max_iter=3"]


def test_processes_of_a_launcher_are_counted_by_its_variables(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert parse([DEMO]).num_gpus == 4
    with pytest.raises(SystemExit):
        parse([DEMO, "--num-gpus", "4"])


@pytest.mark.parametrize(
    "words",
    [
        ["--config-file", DEMO, "another"],
        [DEMO, "another"],
        [DEMO, "--precision", "bf16"],
        ["--eval-only", DEMO, "w.pth", "train.init_checkpoint=v.pth"],
        [DEMO, "--no-such-flag"],
        [DEMO, "--output", "a", "train.output_dir=b"],
        [DEMO, "train.output_dir=s3://a/b"],
    ],
)
def test_words_that_contradict_each_other(words, capsys):
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 2
    assert "train_net.py: error: " in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """The folder of a run."""
    for name in ("config.yaml", "model_final.pth"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    return tmp_path / "run"


def test_an_evaluation_takes_weights(run, monkeypatch):
    monkeypatch.chdir(run.parent)

    def read(*words):
        request = parse(["--eval-only", *map(str, words)])
        return request.recipe, request.weights, request.output

    evaluation = run / "evaluation"
    for weights in (run, run / "model_final.pth"):
        expected = (f"{run}/config.yaml", str(weights), None)
        for words in ([weights], ["--weights", weights]):
            assert read(*words) == expected
            assert check(parse(["--eval-only", *map(str, words)])).output == evaluation
            evaluation.rmdir()  # which was claimed
    (run / "other.pth").touch()
    other = check(parse(["--eval-only", DEMO, f"{run}/other.pth"])).output
    assert other == Path("output/other_evaluation")
    expected = (DEMO, "eva_coco_seg", None)
    assert read(DEMO, "eva_coco_seg") == read(DEMO, "--weights", "eva_coco_seg") == expected
    assert read("--config-file", DEMO, "eva_coco_seg") == expected
    assert read(DEMO, "hf://one/two/three.pth")[1] == "hf://one/two/three.pth"
    assert read(weights, "--output", "mine")[1:] == (str(weights), Path("mine"))
    assert read(DEMO, "a b/c.pth")[1] == "a b/c.pth"
    assert read(DEMO, "train.init_checkpoint='a b/c.pth'")[1] == "a b/c.pth"


@pytest.mark.parametrize("output", [[], ["train.output_dir=mine"]])
def test_a_run_on_own_data_has_a_folder_of_its_own(look, monkeypatch, output):
    monkeypatch.setattr(DataRequest, "check", lambda request: None)
    request = look(DEMO, "--data", "coins/data.yaml", *output)
    expected = "mine" if output else "output/coins_eva_debug"
    assert request.output == Path(expected)
