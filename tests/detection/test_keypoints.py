"""Detectors of keypoints: own data decide, a run remembers them, and every result has them."""

import json

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from eva_command.label import main as label
from eva_data.detection.coco import read_coco
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.tiles import Slicing
from eva_detection.config.files import load_config_file, save_config
from eva_detection.config.own_data import apply_data
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.inference.predictor import Predictor, find_categories, find_keypoints
from eva_detection.inference.test_time_augmentation import EVARCNNWithTTA, SlicedRCNN
from eva_report.detection_demo import as_drawn
from eva_runs.recipes import find_recipe

CASCADE, ONE_STAGE = "cascade_mask_rcnn_vitdet_eva_debug", "keypoint_rcnn_vitdet_eva_debug"


@pytest.fixture(scope="module")
def folder(demo):
    """Digit scenes with keypoints."""
    return demo("keypoints", val=6) / "keypoints"


@pytest.fixture
def read(folder, tmp_path):
    """Function: own data, the file of a part after a change of its content."""

    def read_data(change=None, part="train", **options):
        names = {part: folder / f"annotations/instances_{part}.json" for part in ("train", "val")}
        if change:
            content = json.loads(names[part].read_text())
            change(content)
            names[part] = tmp_path / "changed.json"
            names[part].write_text(json.dumps(content))
        files = {name: (file, folder / name) for name, file in names.items()}
        return resolve(DataRequest(files=files, allow_empty=True, **options))

    return read_data


def samples_of(cfg, data, *steps):
    cfg.dataloader.train.mapper.augmentations = [*steps]
    mapper = instantiate(cfg.dataloader.train.mapper)
    return [mapper(record) for record in EvaluationSet(cfg, data).build_dataset("train")[:2]]


@pytest.mark.parametrize("recipe", [CASCADE, ONE_STAGE])
def test_keypoints_of_own_data_are_learnt(recipe, read, load_config):
    cfg, data = load_config(f"demo/{recipe}"), read()
    apply_data(cfg, data)
    samples = samples_of(cfg, data)
    torch.manual_seed(0)
    with torch.no_grad(), EventStorage(0):
        losses = instantiate(cfg.model)(samples)
    assert losses["loss_keypoint"] == pytest.approx(np.log(56**2), abs=2)  # of chance
    assert ("loss_mask" in losses) == (recipe == CASCADE)


def test_a_mirrored_image_has_left_and_right(read, tiny_config):
    cfg, data = tiny_config(), read()
    apply_data(cfg, data)
    before = samples_of(cfg, data)[0]["instances"].gt_keypoints.tensor
    flip = LazyCall(T.RandomFlip)(prob=1.0, horizontal=True)
    mirrored = samples_of(cfg, data, flip)[0]["instances"].gt_keypoints.tensor
    assert (mirrored[:, 3, 0] < mirrored[:, 4, 0]).all()  # left of right
    assert torch.equal(mirrored[:, 3, 0], 128 - before[:, 4, 0])
    assert torch.equal(mirrored[:, 1, 1], before[:, 1, 1])
    cfg.dataloader.train.dataset.filter_empty = False
    nothing = {"file_name": data.parts["train"].folder + "/000001.jpg", "annotations": []}
    sample = instantiate(cfg.dataloader.train.mapper)({**nothing, "height": 128, "width": 128})
    assert sample["instances"].gt_keypoints.tensor.shape == (0, 5, 3)


def test_the_labels_themselves_score_100(read, tiny_config, tmp_path):
    cfg, data = tiny_config(f"train.output_dir={tmp_path}"), read()
    notes = apply_data(cfg, data)
    assert any("0.05 for 5 keypoints" in note for note in notes)
    evaluator, val = EvaluationSet(cfg, data).evaluator, data.parts["val"]
    evaluator.reset()
    for key in val.images:
        objects = [entry for entry in val.objects if entry["image_id"] == key]
        found, boxes = Instances((128, 128)), np.array([entry["bbox"] for entry in objects])
        found.pred_boxes = Boxes(torch.tensor(np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
        found.scores = torch.ones(len(boxes))
        found.pred_classes = torch.tensor([entry["category_id"] - 1 for entry in objects])
        points = torch.tensor([entry["keypoints"] for entry in objects]).reshape(-1, 5, 3)
        found.pred_keypoints = points + torch.tensor([0.5, 0.5, 0])  # as the mapper's
        evaluator.process([{"image_id": key}], [{"instances": found}])
    scores = evaluator.evaluate()
    assert scores.keys() == {"bbox", "keypoints"}
    assert scores["keypoints"]["AP"] == scores["keypoints"]["AP75"] == pytest.approx(100)
    (written,) = tmp_path.glob("inference/*.json")
    assert json.loads(written.read_text())[0]["keypoints"] == val.objects[0]["keypoints"]


@pytest.mark.parametrize(("recipe", "boxes_only"), [(CASCADE, False), (ONE_STAGE, True)])
def test_a_run_remembers_its_keypoints(recipe, boxes_only, read, load_config, tmp_path):
    cfg, data = load_config(f"demo/{recipe}"), read(boxes_only=boxes_only)
    apply_data(cfg, data)
    cfg.own_data.update(boxes_only=boxes_only, masks=not boxes_only, tile=None)
    file = tmp_path / "config.yaml"
    save_config(cfg, file, source=find_recipe("detection", f"demo/{recipe}"))
    again = load_config_file(file)
    with torch.device("meta"):
        states = [instantiate(config.model).state_dict() for config in (cfg, again)]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}
    assert any("keypoint_head" in key for key in states[1]) is not boxes_only
    assert (find_keypoints(again) is None) is boxes_only
    val = read(parts=("val",)) if boxes_only else read()
    apply_data(again, val)  # an evaluation of the run


def test_labels_of_a_detector_keep_keypoints(read, folder, load_config, tmp_path):
    cfg, run = load_config(f"demo/{ONE_STAGE}"), tmp_path / "run"
    apply_data(cfg, read())
    cfg.own_data.update(boxes_only=False, masks=False, tile=None)
    run.mkdir()
    save_config(cfg, run / "config.yaml", source=find_recipe("detection", f"demo/{ONE_STAGE}"))
    torch.save({"model": instantiate(cfg.model).state_dict()}, run / "model_final.pth")
    image, words = next((folder / "val").iterdir()), ("--score-threshold", "0", "--device", "cpu")
    output = tmp_path / "labels"
    label([str(image), "--weights", str(run), "--to", "coco", "--output", str(output), *words])
    labels = read_coco(output / "coco/annotations/instances_train.json")
    assert labels.keypoints == find_keypoints(cfg)
    assert labels.objects


def unlist(content):
    """Take the names out of the categories."""
    for category in content["categories"]:
        del category["keypoints"]


def unlabel(content):
    """Take the keypoints away from all objects."""
    for annotation in content["annotations"]:
        del annotation["keypoints"]


def rename(content):
    """Give a keypoint another name."""
    for category in content["categories"]:
        category["keypoints"][0] = "middle"


@pytest.mark.parametrize(
    ("recipe", "change", "part", "named"),
    [
        (ONE_STAGE, unlist, "train", "centre"),  # which validation lists
        (CASCADE, unlabel, "train", "centre"),
        (CASCADE, rename, "val", "middle"),
    ],
)
def test_data_without_keypoints_or_with_others_are_refused(
    recipe, change, part, named, read, load_config
):
    with pytest.raises(ValueError, match=r"changed\.json") as caught:
        apply_data(load_config(f"demo/{recipe}"), read(change, part))
    assert named in str(caught.value)


def test_every_view_of_an_image_has_keypoints_in_its_boxes(read, tiny_config, picture):
    cfg = tiny_config()
    apply_data(cfg, read())
    torch.manual_seed(0)
    model = instantiate(cfg.model).eval()
    for name in ("test_score_thresh", "test_topk_per_image"):
        for predictor in model.roi_heads.box_predictor:
            setattr(predictor, name, 0.0 if name == "test_score_thresh" else 5)
    resize = instantiate(cfg.dataloader.test.mapper.augmentations)
    points = find_keypoints(cfg)
    for detector in (model, SlicedRCNN(model, Slicing(64, 0.2), resize)):
        predictor = Predictor(
            detector,
            augmentations=resize if detector is model else (),
            categories=find_categories(cfg),
            score_threshold=0.0,
            keypoints=points,
        )
        objects = predictor.in_coco_format(picture)
        assert objects
        for entry in objects:
            x, y, width, height = entry["bbox"]
            places = np.reshape(entry["keypoints"], (5, 3))[:, :2] + 0.5
            assert (places >= np.array([x, y]) - 1).all()
            assert (places <= np.array([x + width, y + height]) + 1).all()
            assert as_drawn(entry, predictor.class_names, points).skeleton == points.skeleton
    with pytest.raises(ValueError, match="keypoints"):
        EVARCNNWithTTA(model)
