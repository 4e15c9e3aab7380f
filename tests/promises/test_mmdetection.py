"""Detection in mmdetection: report, scores, predictions, weights of detectron2, its own tools."""

import json

import pytest
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def output(finished):
    """Folder of a training."""
    return finished("mmdetection")


@pytest.fixture(scope="module")
def scenes(demo):
    """Folder with the training's data as COCO lays them out."""
    return demo("coco") / "coco"


def scores(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_a_detector_of_detectron2_has_the_same_scores_here(finished, trainers, run, tmp_path):
    """Names are translated while loading; a converted file loads, too."""
    weights = finished("detection") / "model_final.pth"
    run("eva", "convert", weights, "--to", "mmdet", "--output", tmp_path / "converted.pth")
    words = trainers("mmdetection").train[3:]
    found = {}
    for name, file in (("as it is", weights), ("converted", tmp_path / "converted.pth")):
        folder = tmp_path / name
        run("eva", "mmdetection", "evaluate", words[0], file, *words[1:], "--work-dir", folder)
        found[name] = scores(next(folder.rglob("results.json")).parent)["bbox"]
    expected = scores(finished("detection"))["bbox"]
    assert str(found["as it is"]) == str(found["converted"])
    for name in ("AP", "AP50", "AP75"):
        assert found["converted"][name] == pytest.approx(expected[name], abs=0.1)


def test_the_demo_finds_objects(output, scenes, run, tmp_path):
    words = (scenes / "val", "--output", tmp_path / "out", "--score-threshold", 0.01)
    run("eva", "mmdetection", "demo", output, *words)
    found = COCO(tmp_path / "out" / "predictions.json")
    assert len(found.imgs) == 4
    assert found.anns
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4


CLIENT = """
import sys
from mmdet.apis import DetInferencer, inference_detector, init_detector
config, weights, picture = sys.argv[1:]
model = init_detector(config, weights, device="cpu")
assert len(inference_detector(model, picture).pred_instances.bboxes)
inferencer = DetInferencer(config, weights, device="cpu", show_progress=False)
assert inferencer(picture, no_save_vis=True)["predictions"]
"""


def test_mmdetection_s_own_programs_and_functions_serve_a_recipe(
    output, scenes, trainers, run, tools_of, tmp_path
):
    config, *_ = trainers("mmdetection").train[3:]
    settings = ("train_cfg.max_iters=1", "train_cfg.val_interval=1")
    for loader in ("train", "val", "test"):
        settings += (f"{loader}_dataloader.dataset.data_root={scenes}",)
    for kind in ("val", "test"):
        settings += (f"{kind}_evaluator.ann_file={scenes / 'annotations/instances_val.json'}",)
    words = (config, "--work-dir", tmp_path / "out", "--cfg-options", *settings)
    run("python", tools_of("mmdet") / "train.py", *words)
    saved, weights = tmp_path / "out" / config.name, tmp_path / "out" / "iter_1.pth"
    end = run("python", tools_of("mmdet") / "test.py", saved, weights)
    assert "bbox_mAP" in end.text
    run("python", "-c", CLIENT, saved, weights, sorted((scenes / "val").iterdir())[0])


def test_mmdetection_s_own_analysis_reads_a_run(output, run, tools_of, tmp_path):
    config, results = output / "small.py", tmp_path / "results.pkl"
    weights, work = output / "iter_6.pth", tmp_path / "work"
    run("python", tools_of("mmdet") / "test.py", config, weights, "--out", results,
        "--work-dir", work)  # fmt: skip
    analysis = tools_of("mmdet") / "analysis_tools"
    run("python", analysis / "analyze_results.py", config, results, tmp_path, "--topk", 1)
    assert len(list(tmp_path.glob("*/*.jpg"))) == 2, "the best image and the worst"
    run("python", analysis / "confusion_matrix.py", config, results, tmp_path)
    assert (tmp_path / "confusion_matrix.png").stat().st_size
