"""The evaluation's command line: what it scores, writes, and leaves alone."""

import numpy as np
import pytest
from PIL import Image

from eva_report.drawing import label_image
from eva_segmentation.commands import evaluate
from eva_segmentation.inference.predictor import Predictor


@pytest.fixture(scope="module")
def maps(tiny_run, launch):
    """Label maps of the last weights, by the run's saved config alone."""
    run = tiny_run / "run"
    before = (run / "tiny.py").read_bytes()
    launch(evaluate, run / "tiny.py", run / "iter_3.pth", "--out", tiny_run / "maps")
    assert (run / "tiny.py").read_bytes() == before
    return tiny_run / "maps"


def test_maps_are_those_of_the_weights_that_were_named(tiny_run, maps):
    """Each in the subfolder of its picture, with the labels of the files: 0 is not a class."""
    run, images = tiny_run / "run", tiny_run / "images" / "validation"
    files = sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.*"))
    assert files == ["a.png", "b.png", "sub/a.png"]
    found = {name: np.asarray(Image.open(maps / name)) for name in files}
    assert len(np.unique(np.concatenate([*found.values()]))) > 1  # of several classes
    equal = {}
    for weights in ("iter_3.pth", "iter_1.pth"):
        predictor = Predictor.from_config(run / "tiny.py", weights=run / weights, device="cpu")
        assert predictor.labels == (1, 2, 3, 4, 5)
        direct = {name: predictor(images / name.replace(".png", ".jpg")) for name in files}
        equal[weights] = [
            np.array_equal(label_image(direct[name], predictor.labels, predictor.colors), map_)
            for name, map_ in found.items()
        ]
    assert equal == {"iter_3.pth": [True] * 3, "iter_1.pth": [False] * 3}


def test_slices_slide_over_large_images_as_they_are(tiny_run, launch, fails, tmp_path):
    """A window is then what the model sees of a picture of that size; small ones are as before."""
    run, images = tiny_run / "run", tiny_run / "images" / "validation"
    small = np.asarray(Image.open(images / "a.jpg"))
    whole, sliced, auto = (
        Predictor.from_config(run, device="cpu", slice=size, overlap=0)
        for size in (None, 32, "auto")
    )
    large = np.tile(small, (2, 2, 1))
    assert np.array_equal(sliced(large), np.tile(whole(small), (2, 2)))
    assert np.array_equal(sliced(small), whole(small))
    assert np.array_equal(auto(large), sliced(large))
    assert np.array_equal(auto(large[:48, :48]), whole(large[:48, :48]))
    words = (run / "tiny.py", run / "iter_3.pth", "--out", tmp_path, "--work-dir", tmp_path / "run")
    launch(evaluate, *words, "--slice", 16)
    assert len([*tmp_path.rglob("*.png")]) >= 3
    for options, value in ((("--slice", 4), "4"), (("--slice", 16, "--overlap", 1), "1"),
                           (("--slice", 16, "--tta"), "--tta")):  # fmt: skip
        assert value in fails(evaluate, *words[:2], *options, "--work-dir", tmp_path / "no")
