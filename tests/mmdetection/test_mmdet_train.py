"""The command lines of training and evaluation, and mmdetection's own tools and functions."""

import re
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from safetensors.torch import save_file

from eva_data.images import read_rgb
from eva_mmdetection.evaluation import evaluate
from eva_mmdetection.inference.predictor import Predictor, as_coco
from eva_mmdetection.model.detectron2_names import to_detectron2
from eva_mmdetection.training import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.meshgrid:UserWarning", "ignore:The draw is False:UserWarning"
)
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
CPU = dict(device="cpu")


def same(ours, theirs):
    for name in ("bboxes", "scores", "labels", "masks"):
        assert torch.equal(ours[name], theirs[name]), name


def test_a_run_trains_evaluates_and_saves(tiny_run, scalars):
    log = scalars(tiny_run)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3
    assert all(np.isfinite(losses))
    assert any("coco/bbox_mAP" in entry for entry in log)
    saved = torch.load(tiny_run / "iter_3.pth", weights_only=False)  # written by this test
    assert list(saved["meta"]["dataset_meta"]["classes"]) == ["disc", "bar"]


def test_the_evaluation_gives_the_score_of_the_run(
    tiny_run, tiny, launch, fails, scalars, tmp_path, capsys
):
    command = [evaluate, tiny_run / "tiny.py", tiny_run / "iter_3.pth", "--work-dir", tmp_path]
    capsys.readouterr()
    launch(*command, "--out", tmp_path / "out", "log_level=INFO")
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""  # nothing that COCO's scorer prints
    assert lines[0].endswith("tiny.py on cpu")
    assert re.fullmatch(r"data     test: \d+ images, \d+ objects, 2 classes \(.*\)", lines[2])
    assert [line.split()[0] for line in lines[4:]] == ["box", "mask", "took", "report", "next"]
    log = (tmp_path / "log.txt").read_text()
    for part in ("System environment", "type='CascadeRCNN'", "CascadeRCNN(", "Average Precision"):
        assert part in log
    assert "\x1b" not in log
    (file,) = tmp_path.glob("2*/*.json")
    scores = Config.fromfile(file)
    (expected,) = (entry for entry in scalars(tiny_run) if "coco/bbox_mAP" in entry)
    assert scores["coco/bbox_mAP"] == expected["coco/bbox_mAP"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["predictions.bbox.json", "predictions.segm.json"]
    assert "--out" in fails(*command, "--out", tmp_path / "out")


@pytest.fixture(scope="module")
def predictor(tiny_run):
    """The trained detector, with all of its detections."""
    config, weights = tiny_run / "tiny.py", tiny_run / "iter_3.pth"
    return Predictor.from_config(config, weights=weights, score_threshold=0.0, **CPU)


def test_the_reader_of_pictures_is_found_by_its_type(predictor, tiny, tiny_run, tmp_path):
    """Own configs may read boxes, too, as mmdetection's do, in any order."""
    cfg, weights = Config.fromfile(tiny_run / "tiny.py"), tiny_run / "iter_3.pth"
    dataset = cfg.test_dataloader.dataset
    steps = dataset.pipeline
    dataset.pipeline = [dict(type="mmdet.LoadAnnotations", with_bbox=True), *steps]
    cfg.dump(tmp_path / "other.py")
    other = Predictor.from_config(
        tmp_path / "other.py", weights=weights, score_threshold=0.0, **CPU
    )
    picture = tiny / "val" / "1.png"
    same(other(picture), predictor(picture))
    dataset.pipeline = steps[1:]
    cfg.dump(tmp_path / "without.py")
    with pytest.raises(ValueError, match=r"without\.py: .* no LoadImageFromFile, .*Resize"):
        Predictor.from_config(tmp_path / "without.py", weights=weights, **CPU)


@pytest.mark.filterwarnings("ignore:Failed to add .*LocalVisBackend:UserWarning")
def test_mmdetections_functions_detect_the_same(predictor, tiny, tiny_run):
    picture = tiny / "val" / "1.png"
    found = predictor(picture)
    assert len(found)
    assert found.masks.shape == (len(found), 64, 64)
    assert (found.scores.diff() <= 0).all()
    model = init_detector(str(tiny_run / "tiny.py"), str(tiny_run / "iter_3.pth"), **CPU)
    assert model.dataset_meta["classes"] == ["disc", "bar"]
    same(inference_detector(model, str(picture)).pred_instances, found)
    inferencer = DetInferencer(
        str(tiny_run / "tiny.py"), str(tiny_run / "iter_3.pth"), show_progress=False, **CPU
    )
    (result,) = inferencer(str(picture), return_datasamples=True, no_save_vis=True)["predictions"]
    same(result.pred_instances, found)


@pytest.mark.parametrize("form", ["mmdet", "detectron2"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.filterwarnings("ignore:dataset_meta or class names are not saved:UserWarning")
def test_mmdetections_functions_take_converted_files(form, suffix, tiny_run, tmp_path):
    weights = torch.load(tiny_run / "iter_3.pth", weights_only=False)["state_dict"]  # of a test
    file = tmp_path / f"weights{suffix}"
    converted = dict(weights) if form == "mmdet" else to_detectron2(weights)[0]
    if suffix == ".pth":
        torch.save({"model": converted}, file)
    else:
        save_file(converted, file)
    model = init_detector(str(tiny_run / "tiny.py"), str(file), **CPU)
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


FIRST = """
import sys, warnings
warnings.simplefilter("ignore")
from mmdet.apis import inference_detector, init_detector
model = init_detector(sys.argv[1], sys.argv[2], device="cpu")
print(len(inference_detector(model, sys.argv[3]).pred_instances))
"""


def test_the_plugin_may_come_after_mmdetections_functions(
    predictor, tiny, tiny_run, run_started, tmp_path
):
    files = (tiny_run / "tiny.py", tiny_run / "iter_3.pth", tiny / "val" / "1.png")
    done = run_started("-c", FIRST, *files, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == len(predictor(files[-1]))


def test_a_threshold_leaves_out_lower_scores(predictor, tiny):
    picture = tiny / "val" / "1.png"
    before = predictor(picture)
    predictor.score_threshold = float(before.scores[0])
    assert len(predictor(picture)) == 1
    predictor.score_threshold = 1.0
    nothing = predictor(picture)
    predictor.score_threshold = 0.0
    assert len(nothing) == 0
    assert as_coco(nothing) == []
    rgb = read_rgb(picture, upright=True)
    enlarged = rgb.repeat(8, axis=0).repeat(8, axis=1)  # 64 px
    np.testing.assert_array_equal(predictor.draw(rgb, nothing), enlarged)
    assert (predictor.draw(rgb, before) != enlarged).any()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo/cascade_mask_rcnn_eva_debgu"], "demo/cascade_mask_rcnn_eva_debug"),
        (["CONFIG", "--data-root", "nowhere"], "nowhere"),
        (["CONFIG", "train_cfg.max_iter=3"], "max_iter"),
        (["CONFIG", "--load-from", "eva_o356.pth"], "eva_o365"),
        (["CONFIG", "--train-images", "x"], "--train-annotations"),
        (["CONFIG", "--boxes-only"], "--boxes-only"),
        (["CONFIG", "--work-dir", "RUN"], "--resume"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, named, tiny, tiny_run, fails, tmp_path):
    places = {"CONFIG": tiny / "tiny.py", "RUN": tiny_run}
    if "--work-dir" not in arguments:
        arguments = [*arguments, "--work-dir", tmp_path / "run"]
    line = fails(train, *(places.get(word, word) for word in arguments))
    assert line.startswith("train.py: ")
    assert named in line
    assert not (tmp_path / "run").exists()


def test_missing_data_is_named(configs, fails, tmp_path):
    recipe = configs / "coco" / "cascade_mask_rcnn_eva_g_1280.py"
    command = [train, recipe, "--data-root", tmp_path, "--work-dir", tmp_path / "run"]
    assert "train2017" in fails(*command, "--load-from", "eva_debug")
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
    assert "instances_train2017.json" in fails(*command, "--load-from", "eva_debug")


HEAVY = {"torch", "mmengine", "mmcv", "mmdet", "cv2"}
