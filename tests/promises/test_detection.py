"""Detection in detectron2: report, scores, predictions, exports, submissions, and its own tools."""

import json
import shutil
import zipfile

import pytest
import torch
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def output(finished):
    """Folder of a training."""
    return finished("detection")


@pytest.fixture(scope="module")
def scenes(demo):
    """Folder with the training's data as COCO lays them out."""
    return demo("coco") / "coco"


@pytest.fixture(scope="module")
def picture(scenes):
    return sorted((scenes / "val").iterdir())[0]


def test_the_demo_draws_and_writes_predictions_and_names_what_it_cannot_read(
    output, scenes, run, fails, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 nothing")
    words = (output, scenes / "val", broken, "--output", tmp_path / "out", "--to", "coco")
    end = run("eva", "detection", "demo", *words, "--score-threshold", 0.01, code=None)
    fails(end, "broken.jpg", code=1)
    found = COCO(tmp_path / "out" / "predictions.json")
    assert len(found.imgs) == 4
    assert found.anns
    assert all(0 < one["score"] <= 1 for one in found.anns.values())
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 4
    data = COCO(tmp_path / "out/coco/annotations/instances_train.json")
    assert data.anns == found.anns
    for one in data.imgs.values():
        copy = tmp_path / "out/coco/images/train" / one["file_name"]
        assert copy.read_bytes() == (scenes / "val" / one["file_name"]).read_bytes()


PREDICTOR = """
import sys, json
from eva_detection.inference.predictor import Predictor
predictor = Predictor.from_run(sys.argv[1], score_threshold=0.01)
assert predictor.class_names[0] == "0"
print(json.dumps(predictor(sys.argv[2]).scores.tolist()))
"""


ALONE = """
import json, sys
for name in ("detectron2", "eva_detection", "eva_backbone", "eva_data", "mmcv", "timm"):
    sys.modules[name] = None
import numpy as np, torch, torchvision
from PIL import Image
program = torch.jit.load(sys.argv[1])
picture = torch.from_numpy(np.array(Image.open(sys.argv[2]))).permute(2, 0, 1)
boxes, classes, masks, scores, size = program(picture)
assert masks.shape[-2:] == (28, 28) and tuple(size) == tuple(picture.shape[1:])
print(json.dumps(scores.tolist()))
"""


def test_torchscript_is_the_complete_detector_and_needs_torch_alone(output, picture, run, tmp_path):
    """And what the documented predictor finds."""
    predicted = json.loads(run("python", "-c", PREDICTOR, output, picture).out.splitlines()[-1])
    assert predicted
    file = tmp_path / "detector.ts"
    words = ("--weights", output, "--format", "torchscript", "--output", file, "--image", picture)
    run("eva", "detection", "export", *words, "--score-threshold", 0.01)
    scores = json.loads(run("python", "-c", ALONE, file, picture).out.splitlines()[-1])
    assert sorted(scores, reverse=True) == pytest.approx(predicted, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
def test_exports_of_the_backbone_give_its_pyramid(form, output, run, tmp_path):
    file = tmp_path / f"backbone.{'pt2' if form == 'torch-export' else 'onnx'}"
    run("eva", "detection", "export", "--weights", output, "--format", form, "--output", file)
    images = torch.randn(1, 3, 128, 128)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        (given,) = session.get_inputs()
        assert (given.name, given.shape) == ("images", [1, 3, 128, 128])
        levels = session.run(None, {"images": images.numpy()})
    else:
        levels = torch.export.load(file).module()(images)
        levels = list(levels.values()) if isinstance(levels, dict) else levels
    sides = [level.shape[-1] for level in levels]
    assert len(sides) >= 3
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize("server", ["coco", "lvis"])
def test_submissions_are_written_and_pass_their_check(server, output, scenes, call_eva, tmp_path):
    images = scenes / "annotations" / "instances_val.json"
    predictions = output / "inference" / "coco_instances_results.json"
    words = ("--server", server, "--images", images)
    given = ("--predictions", predictions, "--output", tmp_path, "--algorithm", "mine")
    call_eva("eva", "submit", "write", *words, *given, code=0)
    for task in ("bbox", "segm"):
        (file,) = (tmp_path / task).iterdir()
        with zipfile.ZipFile(file) as archive:
            assert archive.namelist() == [f"{file.stem}.json"]
            found = json.loads(archive.read(f"{file.stem}.json"))
        assert found
        assert {"image_id", "category_id", "score"} <= found[0].keys()
        call_eva("eva", "submit", "check", *words, "--task", task, file, code=0)


def test_detectron2_s_own_program_trains_and_scores_a_recipe(trainers, run, tmp_path):
    small = trainers("detection")
    run("eva", "config", "demo/cascade_mask_rcnn_vitdet_eva_debug", "--copy", tmp_path / "mine")
    (recipe,) = (tmp_path / "mine").rglob("cascade_mask_rcnn_vitdet_eva_debug.py")
    stock = ("python", "-m", "detectron2_tools.lazyconfig_train_net", "--config-file", recipe)
    settings = [word for word in small.train if "=" in word]
    where = f"train.output_dir={tmp_path / 'out'}"
    run(*stock, *settings, "train.max_iter=1", where, **small.variables)
    weights = f"train.init_checkpoint={tmp_path / 'out' / 'model_final.pth'}"
    end = run(*stock, "--eval-only", *settings, where, weights, **small.variables)
    assert "AP50" in end.text


def test_test_time_augmentation_is_a_setting(output, trainers, run, tmp_path):
    words = (output, "test.aug.min_sizes=[112,128]", "test.aug.flip=True")
    where = f"train.output_dir={tmp_path}"
    run("eva", "detection", "evaluate", *words, where, **trainers("detection").variables)
    file = "inference/coco_instances_results.json"
    first, second = (json.loads((f / file).read_text()) for f in (output, tmp_path))
    assert second
    assert first != second


@pytest.mark.slow
def test_images_that_cannot_be_read_are_replaced_up_to_a_number(
    demo, trainers, run, fails, tmp_path
):
    data = tmp_path / "datasets" / "digit_scenes"
    shutil.copytree(demo("coco"), data)
    broken = sorted((data / "coco" / "train").iterdir())[:2]
    for file in broken:
        file.write_bytes(file.read_bytes()[:400])
    small = trainers("detection")

    def train(name, most):
        words = small.command(tmp_path / name, f"train.max_bad_images={most}", steps=9, period=9)
        return run(*words, code=None, DETECTRON2_DATASETS=data.parent)

    assert train("two", 2).code == 0
    fails(train("one", 1), *(file.name for file in broken))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("train.init_checkpoint=nowhere/weights.pth",), "nowhere/weights.pth"),
        (("--data", "nowhere/data.yaml"), "nowhere/data.yaml"),
        (("--num-gpu", "2"), "--num-gpu"),
    ],
)
def test_what_is_not_there_is_named_before_anything_begins(
    words, value, trainers, call_eva, fails, tmp_path
):
    small = trainers("detection")
    words = ("demo/cascade_mask_rcnn_vitdet_eva_debug", *words)
    where = f"train.output_dir={tmp_path / 'out'}"
    end = call_eva("eva", "detection", "train", *words, where, **small.variables)
    fails(end, value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        ("detection", "custom/cascade_mask_rcnn_vitdet_eva_small"),
        pytest.param("segmentation", "custom/upernet_eva_small", marks=pytest.mark.slow),
        pytest.param("mmdetection", "custom/cascade_mask_rcnn_eva_small", marks=pytest.mark.slow),
    ],
)
def test_a_run_beside_another_recipe_is_one_line(
    task, recipe, finished, picture, call_eva, fails, tmp_path
):
    words = ("eva", task, "demo", recipe, finished(task), picture, "--output", tmp_path / "out")
    ended = call_eva(*words)
    fails(ended, finished(task), "has its own", code=1)
    assert len(ended.err.splitlines()[-1]) < 300
