"""EoMT and Mask2Former for panoptic segments: COCO's files read, trained, predicted, scored."""

import argparse
import json
import re

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.structures import INSTANCE_OFFSET
from mmengine.dataset import pseudo_collate
from PIL import Image

from eva_mmdetection import parts
from eva_mmdetection.data import own_data
from eva_mmdetection.inference.export import export_instances
from eva_mmdetection.inference.predictor import Predictor
from eva_openmmlab import config as configuration
from eva_openmmlab.weights import load_start
from eva_runs.recipes import list_recipes

SIDE = 64
RECIPES = [recipe.name for recipe in list_recipes("mmdetection") if "rcnn" not in recipe.name]
SEGMENTS = {7: (1, slice(0, 20), 1), 9: (1, slice(20, 40), 1), 300: (5, slice(40, 64), 0)}


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_builds_and_its_data_fit_its_heads(name, load_config):
    cfg = load_config(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    if "eomt" in name:
        assert model.panoptic_head.cls_embed.in_features == model.backbone.net.embed_dim
    else:
        first = model.panoptic_head.pixel_decoder.input_convs[0].conv
        assert first.in_channels == model.backbone.embed_dim
    for loader in configuration.LOADERS:
        dataset = DATASETS.build({**cfg[loader].dataset, "lazy_init": True})
        assert len(dataset.metainfo["classes"]) == model.num_classes
        assert model.panoptic_fusion_head.num_classes == model.num_classes
    panoptic = cfg.model.test_cfg.panoptic_on
    assert ("Panoptic" in cfg.test_evaluator.type) == panoptic == ("panoptic" in name)


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    """Folder of two images in COCO's panoptic format: two things and a stuff in stripes."""
    root = tmp_path_factory.mktemp("panoptic")
    images, annotations = [], []
    for number in (1, 2):
        ids, segments = np.zeros((SIDE, SIDE), np.int64), []
        for key, (category, rows, _) in SEGMENTS.items():
            ids[rows] = key
            height = rows.stop - rows.start
            box = [0, rows.start, SIDE, height]
            area = SIDE * height
            segments.append(dict(id=key, category_id=category, bbox=box, area=area, iscrowd=0))
        colours = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
        (root / "seg").mkdir(exist_ok=True)
        Image.fromarray(colours).save(root / "seg" / f"{number}.png")
        Image.fromarray(colours * 20).save(root / f"{number}.jpg")
        images.append(dict(id=number, file_name=f"{number}.jpg", width=SIDE, height=SIDE))
        annotations.append(dict(image_id=number, file_name=f"{number}.png", segments_info=segments))
    categories = [dict(id=1, name="disc", isthing=1), dict(id=5, name="floor", isthing=0)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "seg.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def dataset(panoptic, load_config):
    """Function: the published recipe's dataset of a loader, on these files."""

    def build(loader):
        settings = load_config("coco/eomt_eva_l_640_panoptic")[loader].dataset
        for step in settings.pipeline:
            for key in {"scale", "crop_size"} & step.keys():
                step[key] = (SIDE, SIDE)
        names = dict(classes=("disc", "floor"), thing_classes=("disc",), stuff_classes=("floor",))
        settings.update(
            data_root=str(panoptic),
            ann_file="seg.json",
            data_prefix=dict(img="", seg="seg"),
            metainfo=names | dict(palette=[(1, 2, 3), (4, 5, 6)]),
        )
        return DATASETS.build(settings)

    return build


SMALL = {
    "demo/eomt_eva_debug": (
        dict(depth=3, num_queries=6),
        dict(in_channels=32, num_points=64),
    ),
    "demo/mask2former_eva_debug_panoptic": (
        dict(depth=4, interaction_indexes=None, deform_num_heads=2, conv_inplane=4),
        dict(in_channels=[32] * 4, num_queries=6),
    ),
}


@pytest.fixture(params=SMALL)
def model(request, load_config):
    cfg = load_config(request.param).model
    classes = dict(num_things_classes=1, num_stuff_classes=1)
    backbone, head = SMALL[request.param]
    cfg.backbone.update(img_size=SIDE, embed_dim=32, num_heads=2, mlp_dim=48, **backbone)
    cfg.panoptic_head.update(head | classes)
    cfg.panoptic_fusion_head.update(classes)
    cfg.data_preprocessor.pad_size_divisor = SIDE
    cfg.test_cfg.update(panoptic_on=True, object_mask_thr=0.0)
    torch.manual_seed(0)
    return MODELS.build(cfg)


def test_panoptic_segments_are_read_learnt_and_scored(dataset, model, panoptic):
    training = dataset("train_dataloader")
    data = model.data_preprocessor(pseudo_collate([training[0], training[1]]), training=True)
    losses = model.train()(**data, mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert len(losses) in (9, 12)  # of three predictions, or of four
    evaluated = dataset("val_dataloader")
    metric = METRICS.build(
        dict(
            type="PanopticMetric",
            ann_file=str(panoptic / "seg.json"),
            seg_prefix=str(panoptic / "seg"),
        )
    )
    metric.dataset_meta = evaluated.metainfo
    model.eval()
    for index in range(2):
        (sample,) = model.val_step(pseudo_collate([evaluated[index]]))
        assert sample.pred_panoptic_seg.sem_seg.shape == (1, SIDE, SIDE)
        assert sample.pred_instances.masks.shape[1:] == (SIDE, SIDE)
        metric.process(None, [sample.to_dict()])
    assert 0 <= metric.evaluate(2)["coco_panoptic/PQ"] < 100
    for index in range(2):  # the truth
        segments = torch.full((1, SIDE, SIDE), 2)
        for number, (_, rows, is_thing) in enumerate(SEGMENTS.values(), start=1):
            segments[:, rows] = number * INSTANCE_OFFSET if is_thing else 1
        prediction = dict(sem_seg=segments)
        metric.process(None, [dict(img_id=index + 1, pred_panoptic_seg=prediction)])
    scores = metric.evaluate(2)
    assert {scores[f"coco_panoptic/{name}"] for name in ("PQ", "PQ_th", "PQ_st")} == {100.0}


def test_a_vit_starts_it_and_own_classes_start_from_scratch(model, load_config, tmp_path):
    torch.save({"state_dict": model.state_dict()}, tmp_path / "eomt.pth")
    backbone = model.backbone.state_dict()
    prefix = "net." if "query" in backbone else ""
    vit = ("blocks", "patch_embed", "pos_embed", "cls_token")
    names = [name for name in backbone if name.startswith(tuple(prefix + part for part in vit))]
    trunk = {name.removeprefix("net."): backbone[name] for name in names}
    torch.save({"model": trunk}, tmp_path / "vit.pth")
    report = load_start(model, tmp_path / "vit.pth")
    assert {"backbone.query", "backbone.level_embed"} & {*report.missing}
    cfg = model.panoptic_head
    model.panoptic_head.cls_embed = torch.nn.Linear(cfg.cls_embed.in_features, 8)
    report = load_start(model, tmp_path / "eomt.pth")
    assert set(report.missing) == {f"panoptic_head.cls_embed.{k}" for k in ("weight", "bias")}


def test_own_objects_need_masks(write_scenes, load_config, tmp_path):
    words = []
    for part in ("train", "val"):
        (tmp_path / f"{part}.json").write_text(json.dumps(write_scenes(tmp_path / part, 2)))
        words += [f"--{part}-annotations", str(tmp_path / f"{part}.json")]
        words += [f"--{part}-images", str(tmp_path / part)]
    parser = argparse.ArgumentParser()
    own_data.add_arguments(parser)
    config = load_config("coco/eomt_eva_l_640_panoptic")
    cfg = own_data.apply(config, own_data.check(parser.parse_args(words)))
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.num_classes == model.panoptic_fusion_head.num_classes == 2
    assert cfg.val_evaluator.metric == ["bbox", "segm"]
    with pytest.raises(ValueError, match="EoMTHead"):
        own_data.apply(config, own_data.check(parser.parse_args([*words, "--boxes-only"])))


def test_boxes_without_masks_are_refused_by_the_name_of_their_folder(load_config, tmp_path):
    folder = tmp_path / "boxes"
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "images" / part / "a.png")
        (folder / "labels" / part).mkdir(parents=True)
        (folder / "labels" / part / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [disc]\n")
    parser = argparse.ArgumentParser()
    own_data.add_arguments(parser)
    config = load_config("custom/eomt_eva_small")
    config.work_dir = str(tmp_path / "run")
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        own_data.apply(config, own_data.check(parser.parse_args(["--data", str(folder)])))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("divisor", [SIDE, 16], ids=["canvas", "own_shape"])
def test_instances_are_exported_with_their_numbers(divisor, load_config, write_scenes, tmp_path):
    onnx = pytest.importorskip("onnx")
    cfg = load_config("demo/eomt_eva_debug")
    backbone, head = SMALL["demo/eomt_eva_debug"]
    cfg.model.backbone.update(img_size=SIDE, embed_dim=32, num_heads=2, mlp_dim=48, **backbone)
    cfg.model.panoptic_head.update(head)
    cfg.model.data_preprocessor.pad_size_divisor = divisor
    for loader in ("val_dataloader", "test_dataloader"):
        cfg[loader].dataset.pipeline = parts.testing(SIDE)
    cfg.dump(tmp_path / "config.py")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.backbone.mask_probability.zero_()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "weights.pth")
    predictor = Predictor.from_config(
        tmp_path / "config.py", weights=tmp_path / "weights.pth", device="cpu", score_threshold=0.05
    )
    write_scenes(tmp_path / "images", 1)
    wide = tmp_path / "wide.png"
    with Image.open(tmp_path / "images/1.png") as image:
        image.crop((0, 8, SIDE, SIDE - 8)).save(wide)
    file = tmp_path / "instances.onnx"
    export_instances(predictor, file, image=wide)
    onnx.checker.check_model(file)
    program = onnx.load(file)
    assert {node.domain for node in program.graph.node} == {""}
    assert [opset.version for opset in program.opset_import] <= [20]
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    with Image.open(wide) as image:
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    outputs = [output.name for output in session.get_outputs()]
    results = dict(zip(outputs, session.run(None, {"images": pixels}), strict=True))
    expected = predictor(wide)
    assert len(expected) == len(results["scores"]) > 1
    np.testing.assert_allclose(results["scores"], expected.scores, atol=1e-4)
    assert (results["pred_classes"] == expected.labels.numpy()).all()
    np.testing.assert_allclose(results["pred_boxes"], expected.bboxes, atol=1)
    assert (results["pred_masks"][:, 0] != expected.masks.numpy()).mean() < 1e-3
