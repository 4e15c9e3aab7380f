"""`--precision` of every task: what is asked for computes, and reports say it."""

import pytest
import torch

from eva_classification.features import FeatureExtractor

slow = pytest.mark.slow


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_features_are_close_to_those_of_fp32(precision):
    images = torch.randn(4, 3, 64, 64)
    expected, found = (
        FeatureExtractor.from_weights("eva_debug", device="cpu", image_size=64, precision=one)(
            images
        )
        for one in ("fp32", precision)
    )
    assert torch.cosine_similarity(expected, found).min() > 0.995
    assert not found.equal(expected)


@pytest.mark.parametrize(
    ("room", "precision"),
    [
        ("detection", "bf16"),
        pytest.param("detection", "int8", marks=slow),
        pytest.param("mmdetection", "bf16", marks=slow),
        pytest.param("mmdetection", "int8", marks=slow),
        pytest.param("segmentation", "int8", marks=slow),
        pytest.param("segmentation", "fp16", marks=slow),
    ],
)
def test_detectors_and_segmentors_are_scored_in_it(
    room, precision, finished, trainers, run, read_page, tmp_path
):
    place = (f"train.output_dir={tmp_path}",) if room == "detection" else ("--work-dir", tmp_path)
    words = (finished(room), *place, "--precision", precision)
    run("eva", room, "evaluate", *words, **trainers(room).variables)
    page = read_page(next(tmp_path.rglob("report.html")))
    assert f"precision {precision}" in " ".join(page.text.split())


@slow
@pytest.mark.parametrize("room", ["detection", "mmdetection", "segmentation"])
def test_a_demo_takes_it(room, finished, demo, run, tmp_path):
    form = "semantic" if room == "segmentation" else "coco"
    image = next(file for file in sorted((demo(form) / form).rglob("*.jpg")))
    words = ("--output", tmp_path / "out", "--precision", "int8")
    run("eva", room, "demo", finished(room), image, *words)
    assert list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize("task", ["classification", pytest.param("video", marks=slow)])
def test_classifiers_are_scored_in_it(task, finished, engine_data, run, read_page, tmp_path):
    data = engine_data / {"classification": "folder/val", "video": "video/val"}[task]
    words = ("--data", data, "--output", tmp_path, "--workers", 0, "--device", "cpu")
    run("eva", task, "evaluate", finished(task), *words, "--precision", "int8")
    assert '"precision": "int8"' in (tmp_path / "results.json").read_text()
    assert "precision int8" in " ".join(read_page(tmp_path / "report.html").text.split())


@slow
@pytest.mark.parametrize(
    ("form", "precision"), [("torch-export", "int8"), ("torch-export", "bf16"), ("onnx", "fp16")]
)
def test_a_backbone_is_exported_in_it(form, precision, finished, run, tmp_path):
    """The command compares the file with the backbone in this precision."""
    file = tmp_path / f"backbone.{'pt2' if form == 'torch-export' else 'onnx'}"
    words = ("--weights", finished("detection"), "--format", form, "--output", file)
    run("eva", "detection", "export", *words, "--precision", precision)
    if form == "torch-export":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        found = torch.export.load(file).module()(torch.randn(1, 3, 128, 128, dtype=dtype))
        assert {level.dtype for level in found.values()} == {dtype}


@pytest.mark.parametrize(
    "words",
    [
        ("detection", "train", "demo/cascade_mask_rcnn_vitdet_eva_debug", "--precision", "int8"),
        ("classification", "train", "eva_debug_digits", "--run.precision", "int8"),
        ("clip", "export", "--weights", "eva_clip_psz14.pt", "--format", "onnx",
         "--output", "out", "--precision", "int8"),
        ("segmentation", "evaluate", "eva_debug", "--precision", "int4"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_error(words, call_eva, fails):
    fails(call_eva("eva", *words), words[-1] if "train" not in words[:2] else "precision")
