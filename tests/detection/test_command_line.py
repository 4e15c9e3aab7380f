"""The command lines: words in any order, and what is checked before torch is imported."""

import pytest

from eva_detection import command_line
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
        [DEMO, "--weights", "w.pth"],
        ["--eval-only", DEMO, "w.pth", "train.init_checkpoint=v.pth"],
        [DEMO, "--no-such-flag"],
        [DEMO, "--output", "a", "train.output_dir=b"],
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


def test_an_evaluation_takes_weights(run):
    def read(*words):
        request = parse(["--eval-only", *map(str, words)])
        return request.recipe, [*request.overrides]

    evaluation = run / "evaluation"
    for weights in (run, run / "model_final.pth"):
        own = [f"train.init_checkpoint={weights}", f"train.output_dir={evaluation}"]
        for words in ([weights], ["--weights", weights]):
            assert read(*words) == (f"{run}/config.yaml", own)
            evaluation.rmdir()  # which was claimed
    named = (DEMO, ["train.init_checkpoint=eva_coco_seg"])
    assert read(DEMO, "eva_coco_seg") == read(DEMO, "--weights", "eva_coco_seg") == named
    assert read("--config-file", DEMO, "eva_coco_seg") == named
    assert read(DEMO, "hf://one/two/three.pth")[1] == [
        "train.init_checkpoint=hf://one/two/three.pth"
    ]
    assert read(weights, "--output", "mine")[1] == ["train.output_dir=mine", own[0]]
    assert read(DEMO, "a b/c.pth")[1] == ["train.init_checkpoint='a b/c.pth'"]


@pytest.mark.parametrize("output", [[], ["train.output_dir=mine"]])
def test_a_run_on_own_data_has_a_folder_of_its_own(look, monkeypatch, output):
    monkeypatch.setattr(command_line, "resolve", lambda request: None)
    launch = look(DEMO, "--data", "coins/data.yaml", *output)
    expected = output or ["train.output_dir=output/coins_eva_debug"]
    assert [*launch.request.overrides] == expected
