"""Predictors: one protocol for all tasks, whatever the framework."""

import re
import shutil

import pytest

PACKAGES = {
    "detection": "eva_detection",
    "mmdetection": "eva_mmdetection",
    "segmentation": "eva_segmentation",
    "classification": "eva_classification",
    "video": "eva_video",
    "clip": "eva_contrastive",
}


@pytest.fixture(params=PACKAGES)
def predictor(request, finished, documented):
    """A predictor of a finished run of each task."""
    from eva_runs.predictor import BasePredictor

    task = request.param
    names = {"video": "VideoPredictor", "clip": "ClipFeatures"}
    kind = documented(PACKAGES[task], names.get(task, "Predictor"))
    assert issubclass(kind, BasePredictor)
    return kind.from_run(finished(task), device="cpu", precision="fp32")


def written(prediction):
    return re.sub(" at 0x[0-9a-f]+", "", repr(prediction))


def test_a_run_predicts_for_a_file_a_list_and_a_folder_with_a_damaged_file(
    predictor, engine_data, demo, tmp_path
):
    video = "VideoPredictor" in type(predictor).__name__
    source = engine_data / "video" if video else demo("coco") / "coco/val"
    suffix = ".mp4" if video else ".jpg"
    files = sorted(source.rglob(f"*{suffix}"))[:2]
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"{number}{suffix}")
    (tmp_path / f"broken{suffix}").write_bytes(b"0")
    first, second = (tmp_path / f"{number}{suffix}" for number in range(2))

    alone = written(predictor(first))
    assert written(predictor([str(first), second])[0]) == alone
    for several in (predictor(tmp_path), predictor.predict_many(tmp_path)):
        assert {file: written(one) for file, one in several}[first] == alone
    pairs = predictor.predict_many(file for file in (second, tmp_path / f"broken{suffix}", first))
    assert [file for file, _ in pairs] == [second, first]
    for wrong in (None, "https://example.com/a.jpg", tmp_path / "nothing*"):
        with pytest.raises((ValueError, OSError)):
            predictor(wrong)
