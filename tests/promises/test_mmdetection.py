"""Detection in mmdetection: report, scores, predictions, weights of detectron2, its own tools."""

import csv
import json
import re

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
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


def test_tables_of_a_part_of_the_data_count_its_images_alone(output, scenes, call_eva, tmp_path):
    words = (output, "--work-dir", tmp_path, "--data-root", scenes)
    call_eva("eva", "mmdetection", "evaluate", *words, "test_dataloader.dataset.indices=2")
    truth = COCO(scenes / "annotations/instances_val.json")
    expected = len(truth.getAnnIds(imgIds=sorted(truth.imgs)[:2]))
    with next(tmp_path.rglob("per_class.csv")).open() as stream:
        assert sum(int(row["objects"]) for row in csv.DictReader(stream)) == expected
    assert list(tmp_path.rglob("report.html"))


CLIENT = """
import sys
from mmdet.apis import DetInferencer, inference_detector, init_detector
config, weights, picture = sys.argv[1:]
model = init_detector(config, weights, device="cpu")
assert len(inference_detector(model, picture).pred_instances.bboxes)
inferencer = DetInferencer(config, weights, device="cpu", show_progress=False)
assert inferencer(picture, no_save_vis=True)["predictions"]
"""


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def own_run(trainers, scenes, run, tmp_path_factory):
    """Folder of a step on own data, boxes alone."""
    output = tmp_path_factory.mktemp("own") / "run"
    config, *_ = trainers("mmdetection").train[3:]
    words = ("--data", scenes, "--boxes-only", "--output", output)
    run("eva", "mmdetection", "train", config, *words, *ONE_STEP)
    return output


ONE_STEP = ("train_cfg.max_iters=1", "train_cfg.val_interval=1")
DRAW = """
import sys
from mmdet.apis import DetInferencer
config, weights, picture, folder = sys.argv[1:]
inferencer = DetInferencer(config, weights, device="cpu", show_progress=False)
inferencer(picture, out_dir=folder, pred_score_thr=0.0)
"""


@pytest.mark.slow
def test_mmdetection_s_own_analysis_and_drawing_read_a_run_on_own_data(
    own_run, scenes, run, tools_of, tmp_path
):
    config, results = own_run / "small.py", tmp_path / "results.pkl"
    weights, work = own_run / "iter_1.pth", tmp_path / "work"
    palette = Config.fromfile(config).test_dataloader.dataset.metainfo.palette
    assert all(isinstance(colour, tuple) for colour in palette), "mmdetection draws by no lists"
    run("python", tools_of("mmdet") / "test.py", config, weights, "--out", results,
        "--work-dir", work)  # fmt: skip
    analysis = tools_of("mmdet") / "analysis_tools"
    run("python", analysis / "analyze_results.py", config, results, tmp_path, "--topk", 1)
    assert len(list(tmp_path.glob("*/*.jpg"))) == 2, "the best image and the worst"
    run("python", analysis / "confusion_matrix.py", config, results, tmp_path)
    assert (tmp_path / "confusion_matrix.png").stat().st_size
    browsed = tmp_path / "browsed"
    run("python", analysis / "browse_dataset.py", config, "--not-show", "--output-dir", browsed)
    assert len(list(browsed.iterdir())) == len(list((scenes / "train").iterdir()))
    picture = sorted((scenes / "val").iterdir())[0]
    run("python", "-c", DRAW, config, weights, picture, tmp_path / "drawn")
    assert (tmp_path / "drawn/vis" / picture.name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])
def test_a_run_is_exported_with_its_numbers(masks, request, scenes, run, documented, tmp_path):
    output, file = request.getfixturevalue("output" if masks else "own_run"), tmp_path / "out.onnx"
    picture = sorted((scenes / "val").iterdir())[0]
    (output / "threshold.json").write_text('{"score_threshold": 0.25}')  # of its evaluation
    run("eva", "export", output, "--image", picture, "--score-threshold", 0.01, "--output", file)
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["preparation"])
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)
    results = dict(zip(facts["outputs"], session.run(None, {"images": pixels[None]}), strict=True))
    predictor = documented("eva_mmdetection", "Predictor").from_config(output, score_threshold=0.01)
    expected, order = predictor(picture), np.argsort(-results["scores"], kind="stable")
    assert len(expected) == len(order) > 0
    assert ("pred_masks" in results) == masks
    np.testing.assert_allclose(results["scores"][order], expected.scores, atol=1e-4)
    np.testing.assert_allclose(results["pred_boxes"][order][0], expected.bboxes[0], atol=0.1)
    assert facts["class_names"] == list(predictor.names)
    default = documented("eva_mmdetection", "Predictor").from_config(output)
    assert facts["score_threshold"] == default.score_threshold == 0.25


VIT = "img_size=64 embed_dim=32 depth=2 num_heads=2 mlp_dim=64 window_size=2 pretrained=None"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet_eva", "dino_eva"])
def test_the_complete_configs_of_the_readme_train(name, root, scenes, run, tmp_path):
    """On mmdetection's own configs, whose batches are of like aspect ratios."""
    readme = (root / "mmdetection/README.md").read_text()
    config = tmp_path / f"{name}.py"
    config.write_text(re.search(rf"```python\n(# {name}\.py\n.*?)```", readme, re.DOTALL)[1])
    small = [f"model.backbone.{pair}" for pair in VIT.split()]
    small += ["model.backbone.global_attn_indexes=[1]", "train_dataloader.num_workers=0"]
    small += [f"{part}_dataloader.persistent_workers=False" for part in ("train", "val")]
    small += ["val_dataloader.num_workers=0", "train_cfg.max_epochs=1"]
    small += ["model.num_queries=20", "model.test_cfg.max_per_img=10"] if "dino" in name else []
    output = tmp_path / "out"
    words = ("--data", scenes, "--image-size", 64, "--output", output)
    run("eva", "mmdetection", "train", config, *words, *small)
    assert (output / "epoch_1.pth").is_file()


def test_a_plan_of_another_detector_is_one_error(tools_of, call_eva, fails):
    config = tools_of("mmdet").parent / "configs/retinanet/retinanet_r50_fpn_1x_coco.py"
    fails(call_eva("eva", "plan", config, "--task", "mmdetection"), "RetinaNet")
