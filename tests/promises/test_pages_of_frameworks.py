"""Detection, mmdetection and segmentation: the page of a training, and its scores once more."""

import json

import numpy as np
import pytest
from PIL import Image

SHOWN = {
    "detection": [("bbox", "AP50"), ("segm", "AP50")],
    "mmdetection": [("bbox", "AP50"), ("segm", "AP50")],
    "segmentation": [("sem_seg", name) for name in ("mIoU", "mAcc", "aAcc")],
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_training_leaves_a_page_of_its_own(name, finished, read_page, begins_with_first_batch):
    output = finished(name)
    begins_with_first_batch(output)
    page = read_page(output / "report.html")
    scores = json.loads((output / "results.json").read_text())
    assert all(f"{scores[group][score]:.1f}" in page.text for group, score in SHOWN[name])
    if name == "segmentation":
        assert all(one in page.text for one in ("brick", "grass", "gravel", "other", "digit"))
    assert page.images
    assert page.curves
    assert {"per_class.csv", "confusion.csv"} <= {file.name for file in output.iterdir()}


@pytest.mark.parametrize("name", SHOWN)
def test_a_run_is_evaluated_by_its_folder_with_the_same_scores(
    name, finished, trainers, run, tmp_path
):
    output, trainer = finished(name), trainers(name)
    place = f"{trainer.output}{tmp_path / 'again'}".split(" ")
    found = [] if name == "detection" else ["--out", tmp_path / "found"]
    run("eva", name, "evaluate", output, *place, *found, **trainer.variables)
    (again,) = (tmp_path / "again").rglob("results.json")
    assert again.with_name("report.html").exists()
    for group, _ in SHOWN[name]:
        first, second = (
            json.loads(file.read_text())[group] for file in (output / "results.json", again)
        )
        assert str(first) == str(second)
    if name == "mmdetection":
        assert list((tmp_path / "found").rglob("*bbox*.json"))
    if name == "segmentation":
        maps = list((tmp_path / "found").rglob("*.png"))
        assert len(maps) == 4
        assert set(np.unique(Image.open(maps[0]))) <= {1, 2, 3, 4, 5}
