"""What every training leaves when it ends, and names when it cannot begin."""

import json
import re

import numpy as np
import pytest
from PIL import Image

ENGINE = ("pretrain", "classification", "video", "clip")
SCORE = {"pretrain": "cosine", "classification": "top1", "video": "top1", "clip": "top1"}
FRAMEWORKS = {
    "detection": [("bbox", "AP50"), ("segm", "AP50")],
    "mmdetection": [("bbox", "AP50"), ("segm", "AP50")],
    "segmentation": [("sem_seg", name) for name in ("mIoU", "mAcc", "aAcc")],
}


def shows(text, score):
    """Whether a number of the text is this one, to three digits."""
    numbers = map(float, re.findall(r"\d+\.?\d*", text))
    return any(number == pytest.approx(score, rel=2e-3) for number in numbers)


@pytest.mark.parametrize("task", ENGINE)
def test_a_training_of_the_engine_leaves_scores_weights_and_a_page(
    finished, metrics_of, read_page, begins_with_first_batch, task
):
    output = finished(task)
    printed = (output.parent / "printed.txt").read_text()
    begins_with_first_batch(output)
    lines = metrics_of(output)
    losses = [line for line in lines if "loss" in line]
    scores = [line[f"val_{SCORE[task]}"] for line in lines if f"val_{SCORE[task]}" in line]
    assert [line["step"] for line in losses] == list(range(8))
    assert len(scores) == 2
    page = read_page(output / "report.html")
    assert shows(page.text, max(scores))
    assert shows(printed, max(scores))
    assert len(page.images) >= 8
    assert all(image.startswith("data:image/") for image in page.images)
    assert page.curves >= 4
    assert "".join(str(output / "report.html").split()) in "".join(printed.split())
    assert (output / "log.txt").stat().st_size > 1000
    assert json.loads((output / "config.json").read_text())["run"]["epochs"] == 2


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_training_of_a_framework_leaves_a_page(
    name, finished, read_page, begins_with_first_batch
):
    output = finished(name)
    begins_with_first_batch(output)
    page = read_page(output / "report.html")
    scores = json.loads((output / "results.json").read_text())
    assert all(f"{scores[group][score]:.1f}" in page.text for group, score in FRAMEWORKS[name])
    if name == "segmentation":
        assert all(kind in page.text for kind in ("brick", "grass", "gravel", "other", "digit"))
    assert page.images
    assert page.curves
    assert {"per_class.csv", "confusion.csv"} <= {file.name for file in output.iterdir()}


@pytest.mark.parametrize(
    "name",
    ["detection", "mmdetection", pytest.param("segmentation", marks=pytest.mark.slow)],
)
def test_a_run_is_evaluated_by_its_folder_with_the_same_scores(
    name, finished, trainers, run, tmp_path
):
    output, trainer = finished(name), trainers(name)
    place = f"{trainer.output}{tmp_path / 'again'}".split(" ")
    out = [] if name == "detection" else ["--out", tmp_path / "out"]
    run("eva", name, "evaluate", output, *place, *out, **trainer.variables)
    (again,) = (tmp_path / "again").rglob("results.json")
    assert again.with_name("report.html").exists()
    for group, _ in FRAMEWORKS[name]:
        first, second = (
            json.loads(file.read_text())[group] for file in (output / "results.json", again)
        )
        assert str(first) == str(second)
    if name == "mmdetection":
        assert list((tmp_path / "out").rglob("*bbox*.json"))
    if name == "segmentation":
        maps = list((tmp_path / "out").rglob("*.png"))
        assert len(maps) == 4
        assert set(np.unique(Image.open(maps[0]))) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "task", ["video", *(pytest.param(t, marks=pytest.mark.slow) for t in ENGINE if t != "video")]
)
def test_the_program_of_a_checkout_has_the_same_settings(
    run, call_eva, training, root, tmp_path, task
):
    """A recipe by its path is the recipe by its name."""
    name = training(task, tmp_path)[3]
    words = ("--run.epochs", 7, "--run.output", tmp_path / "run", "--print-config")
    ours = call_eva("eva", task, "train", name, *words, code=0)
    program, recipe = root / task / "train.py", root / task / f"configs/{name}.py"
    assert run("python", program, recipe, *words).out == ours.out
    assert "7" in ours.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [*ENGINE, *FRAMEWORKS])
def test_a_mistyped_setting_is_named(name, trainers, call_eva, fails, tmp_path):
    trainer = trainers(name)
    words = trainer.command(tmp_path / "run", f"{trainer.typo}=3")
    fails(call_eva(*words, **trainer.variables), trainer.typo.rpartition(".")[2])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("task", "value"), [("video", "many"), ("pretrain", "0")])
def test_a_wrong_value_is_named(call_eva, fails, training, tmp_path, task, value):
    fails(call_eva(*training(task, tmp_path / "run", "--run.epochs", value)), "epochs", code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ENGINE)
def test_data_that_are_not_there_are_named(call_eva, fails, training, tmp_path, task):
    nowhere = tmp_path / "nowhere"
    fails(call_eva(*training(task, tmp_path / "run", "--data.train", nowhere)), nowhere)
    assert not (tmp_path / "run").exists()
