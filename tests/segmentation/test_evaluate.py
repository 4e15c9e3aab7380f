"""The evaluation's command line: what it scores, writes, and leaves alone."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from eva_data.files import UnwritableError
from eva_report.drawing import label_image
from eva_segmentation.evaluation import evaluate
from eva_segmentation.evaluation.metric import IoUAndLabelMaps
from eva_segmentation.inference.predictor import Predictor


def score(folder):
    """The result of the only evaluation in a work folder."""
    (file,) = folder.glob("*/*.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def maps(tiny_run, launch):
    """Label maps of the last weights, by the run's saved config alone."""
    run = tiny_run / "run"
    before = (run / "tiny.py").read_bytes()
    launch(evaluate, run / "tiny.py", run / "iter_3.pth", "--out", tiny_run / "maps")
    assert (run / "tiny.py").read_bytes() == before
    return tiny_run / "maps"


def test_the_saved_config_of_a_run_stays_as_it_is(tiny_run, fails, maps):
    run = tiny_run / "run"
    saved = (run / "tiny.py").read_bytes()
    assert Config.fromfile(run / "test" / "tiny.py").load_from == str(run / "iter_3.pth")
    line = fails(evaluate, run / "tiny.py", run / "iter_3.pth", "--work-dir", run)
    assert "tiny.py" in line
    assert (run / "tiny.py").read_bytes() == saved


def test_the_score_is_that_of_the_last_validation_with_and_without_maps(
    tiny_run, launch, maps, scalars, tmp_path, capsys
):
    """By a run's folder, whose best weights are the last; the terminal has a few lines."""
    run = tiny_run / "run"
    capsys.readouterr()
    launch(evaluate, run, "--work-dir", tmp_path, "log_level=INFO")
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert lines[0] == f"evaluate {run / 'tiny.py'} on cpu"
    assert lines[1].startswith(f"weights  {run / 'best_mIoU_iter_'}")
    assert lines[2] == f"data     test: 3 images, 5 classes ({tiny_run})"
    assert [line.split()[0] for line in lines[3:]] == ["output", "mIoU", "took", "report", "next"]
    log = (tmp_path / "log.txt").read_text()
    assert all(
        part in log for part in ("System environment", "type='EVASegmentor'", "EVASegmentor(")
    )
    assert "\x1b" not in log
    with_maps = score(run / "test")
    for name in ("mIoU", "mAcc", "aAcc"):
        assert score(tmp_path)[name] == with_maps[name]
    assert with_maps["mIoU"] == next(e["mIoU"] for e in scalars(run) if "mIoU" in e)


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


def test_a_folder_with_something_in_it_receives_no_maps(tiny_run, fails, maps):
    run = tiny_run / "run"
    before = sorted(maps.rglob("*"))
    for place in (maps, maps / "a.png"):
        line = fails(evaluate, run / "tiny.py", run / "iter_3.pth", "--out", place)
        assert str(place) in line
    assert sorted(maps.rglob("*")) == before


def test_a_map_is_written_completely_or_not_at_all(tmp_path, small_disk):
    metric = IoUAndLabelMaps(maps=str(tmp_path / "maps"), images=str(tmp_path))
    metric.dataset_meta = {"classes": ["a", "b"], "palette": [[0, 0, 0], [255, 0, 0]]}
    labels = {"data": torch.randint(2, (1, 64, 64))}
    sample = {"img_path": str(tmp_path / "sub/a.jpg"), "pred_sem_seg": labels}
    message = r"sub/a\.png cannot be written: File too large"
    with small_disk(100), pytest.raises(UnwritableError, match=message):
        metric.process(None, [sample | {"gt_sem_seg": labels}])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_maps_need_the_metric_that_writes_them(tiny_run, fails, tmp_path):
    cfg = Config.fromfile(tiny_run / "tiny.py")
    cfg.test_evaluator = dict(type="DepthMetric")
    cfg.dump(tmp_path / "depth.py")
    command = [evaluate, tmp_path / "depth.py", "eva_debug", "--out", tmp_path / "maps"]
    assert "DepthMetric" in fails(*command)
