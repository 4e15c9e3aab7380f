"""mmdetection's detector detects and learns as detectron2's with the same weights."""

import copy
import importlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import AugInput, AugmentationList
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image
from safetensors.torch import load_file

importlib.import_module("eva_mmdetection.plugin")  # before anything of mmdetection

from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402

from eva_detection.config.recipes import update_each  # noqa: E402
from eva_mmdetection.model.detectron2_names import to_detectron2, to_mmdet  # noqa: E402
from eva_mmdetection.parts import (  # noqa: E402
    classes,
    extractor,
    testing as steps_of_a_test,
)

REPOSITORY = Path(__file__).parents[2]
DEBUG_TWIN = "configs/demo/cascade_mask_{}_eva_debug.py"
BASE = REPOSITORY / "mmdetection/configs/_base_/models/cascade_mask_rcnn_eva.py"
NET = dict(
    embed_dim=32,
    depth=4,
    num_heads=2,
    mlp_dim=80,
    pretrain_img_size=64,
    window_size=4,
    global_attn_indexes=[3],
    drop_path_rate=0.0,
    activation_checkpointing=False,
)
SOFT = dict(type="soft_nms", iou_threshold=0.6, min_score=1e-3, method="linear")
GAUSSIAN = dict(type="soft_nms", sigma=0.5, min_score=1e-3, method="gaussian")
# What the golden file's variants set (tests/golden/README.md), in mmdetection's words.
VARIANTS = {
    "hard": {},
    "soft_linear": dict(nms=SOFT, score_thr=0.0, max_per_img=-1),
    "soft_gaussian": dict(nms=GAUSSIAN, score_thr=0.02, max_per_img=-1),
    "maskness": dict(maskness_thr=0.5),
    "soft_linear_maskness": dict(nms=SOFT, score_thr=0.0, max_per_img=-1, maskness_thr=0.5),
}


def _mmdet(*, side, channels, hidden, num_classes, loss=None, test=(), train=()):
    """The base config's detector at small sizes; its pictures are RGB."""
    heads = classes(num_classes, channels=channels, hidden=hidden, loss_cls=loss)
    heads["mask_head"].update(in_channels=channels, conv_out_channels=channels)
    heads["bbox_roi_extractor"] = extractor(7, channels=channels)
    heads["mask_roi_extractor"] = extractor(14, channels=channels)
    config = Config.fromfile(BASE)
    changes = dict(
        data_preprocessor=dict(pad_size_divisor=side, bgr_to_rgb=False),
        backbone=NET | dict(img_size=side, out_channels=channels),
        rpn_head=dict(in_channels=channels, feat_channels=channels),
        roi_head=heads,
        test_cfg=dict(rcnn=dict(test)),
        train_cfg=dict(train),
    )
    config.merge_from_dict(dict(model=changes))
    return MODELS.build(config.model)


def _detectron2(recipe, *, side, channels, hidden, num_classes, **rest):
    """The recipe's detector at the same sizes."""
    model = LazyConfig.load(str(REPOSITORY / "detection/configs" / f"{recipe}.py")).model
    model.backbone.net.update(NET | dict(img_size=side))
    model.backbone.update(out_channels=channels, square_pad=side)
    model.proposal_generator.head.in_channels = channels
    heads = model.roi_heads
    heads.num_classes = num_classes
    pooled = ShapeSpec(channels=channels, height=7, width=7)
    update_each(heads.box_heads, input_shape=pooled, conv_dims=[channels] * 4, fc_dims=[hidden])
    update_each(heads.box_predictors, input_shape=ShapeSpec(channels=hidden), **rest)
    pooled = ShapeSpec(channels=channels, height=14, width=14)
    heads.mask_head.update(input_shape=pooled, conv_dims=[channels] * 5)
    return model


@torch.no_grad()
def _shake(model, *, seed):
    """Random weights that find some hundred objects of several classes."""
    random = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        scale = 0.1 if value.ndim == 1 else 1.2 / max(1, value[0].numel()) ** 0.5
        scale = 0.3 if "cls_score.weight" in name else scale
        noise = torch.randn(value.shape, generator=random) * scale
        value.copy_(value + noise if value.ndim == 1 else noise)
        if "bbox_pred" in name or "anchor_deltas" in name:
            value.mul_(0.3)


@torch.no_grad()
def _detect(model, image, size):
    """Detections of a picture (3, h, w) in pixels of the original, height and width `size`."""
    height, width = image.shape[-2:]
    scale = (width / size[1], height / size[0])
    sample = DetDataSample(
        metainfo=dict(img_shape=(height, width), ori_shape=size, scale_factor=scale)
    )
    return model.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_instances


@pytest.fixture(scope="module")
def golden():
    return load_file(REPOSITORY / "tests/golden/detection_cascade.safetensors")


SLOW = {"soft_linear": pytest.mark.slow}  # soft_linear_maskness does the same and more


@pytest.mark.parametrize("variant", [pytest.param(v, marks=SLOW.get(v, ())) for v in VARIANTS])
def test_golden_cascade(variant, golden):
    sizes = dict(side=128, channels=16, hidden=32, num_classes=6)
    model = _mmdet(**sizes, test=VARIANTS[variant]).eval()
    state = {name[6:]: value for name, value in golden.items() if name.startswith("state.")}
    model.load_state_dict(to_mmdet(state)[0], strict=True)
    found = _detect(model, golden["input.image"], (112, 128))
    expected = {
        field: golden[f"output.{variant}.{field}"]
        for field in ("count", "boxes", "scores", "classes", "mask_area")
    }
    assert len(found) == int(expected["count"])
    first = found[: len(expected["classes"])]
    assert torch.equal(first.labels, expected["classes"])
    torch.testing.assert_close(first.scores, expected["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(first.bboxes, expected["boxes"], atol=1e-2, rtol=0)
    assert (first.masks.flatten(1).sum(1) - expected["mask_area"]).abs().max() <= 3


def _picture(name, side):
    """A real picture (h, w, 3), and the same as both frameworks see it: (3, ., .), uint8."""
    picture = getattr(skimage.data, name)()
    scale = side / max(picture.shape)
    size = [int(length * scale + 0.5) for length in picture.shape[1::-1]]
    small = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture, torch.from_numpy(small).permute(2, 0, 1)


def _in_common_order(boxes, scores, labels, masks):
    """Equal scores may come in any order: sort by class and place instead."""
    order = sorted(range(len(labels)), key=lambda i: (int(labels[i]), *boxes[i].round().tolist()))
    return boxes[order], scores[order], labels[order], masks[order]


def _assert_same(found, expected):
    boxes, scores, labels, masks = _in_common_order(
        found.bboxes, found.scores, found.labels, found.masks
    )
    expected = _in_common_order(
        expected.pred_boxes.tensor, expected.scores, expected.pred_classes, expected.pred_masks
    )
    assert torch.equal(labels, expected[2])
    torch.testing.assert_close(scores, expected[1], atol=2e-5, rtol=0)
    torch.testing.assert_close(boxes, expected[0], atol=2e-3, rtol=0)
    assert (masks != expected[3]).flatten(1).sum(1).max() <= 8, "of some thousand pixels"


@pytest.mark.parametrize("data", ["coco", pytest.param("lvis", marks=pytest.mark.slow)])
def test_real_pictures(data):
    """Softmax over 80 classes, and 1203 classes scaled down to 60 independent ones."""
    loss = dict(type="EVAFederatedLoss", num_classes=60) if data == "lvis" else None
    test = dict(score_thr=0.02, max_per_img=300) if loss else {}
    sizes = dict(side=192, channels=32, hidden=64, num_classes=60 if loss else 80)
    rest = dict(get_fed_loss_cls_weights=lambda: torch.rand(60)) if loss else {}
    theirs = _detectron2(f"{data}/cascade_mask_rcnn_vitdet_eva_g_1280", **sizes, **rest)
    theirs = instantiate(theirs).eval()
    _shake(theirs, seed=0)
    ours = _mmdet(**sizes, loss=loss, test=test).eval()
    ours.load_state_dict(to_mmdet(theirs.state_dict())[0], strict=True)
    for name in ("astronaut", "coffee"):
        picture, image = _picture(name, 192)
        height, width = picture.shape[:2]
        with torch.no_grad():
            entry = dict(image=image.float(), height=height, width=width)
            expected = theirs([entry])[0]["instances"]
        found = _detect(ours, image, (height, width))
        assert len(found) == len(expected) >= 50
        assert len(expected.pred_classes.unique()) >= 3
        _assert_same(found, expected)


def test_the_debug_recipes_from_file_to_masks(tmp_path):
    """Both projects' debug twins as they are, with their own ways to read and resize a picture."""
    theirs = LazyConfig.load(str(REPOSITORY / "detection" / DEBUG_TWIN.format("rcnn_vitdet")))
    resize = AugmentationList(instantiate(theirs.dataloader.test.mapper.augmentations))
    theirs = instantiate(theirs.model).eval()
    _shake(theirs, seed=2)
    config = Config.fromfile(REPOSITORY / "mmdetection" / DEBUG_TWIN.format("rcnn"))
    ours = MODELS.build(config.model).eval()
    ours.load_state_dict(to_mmdet(theirs.state_dict())[0], strict=True)
    pipeline = Compose(steps_of_a_test(128))
    for name in ("rocket", "chelsea"):
        file = tmp_path / f"{name}.png"
        picture = getattr(skimage.data, name)()
        Image.fromarray(picture).save(file)
        resized = AugInput(picture)
        resize(resized)
        image = torch.from_numpy(resized.image.copy()).permute(2, 0, 1)
        height, width = picture.shape[:2]
        entry = dict(image=image.float(), height=height, width=width)
        with torch.no_grad():
            expected = theirs([entry])[0]["instances"]
            data = pipeline(dict(img_path=str(file), img_id=0))
            found = ours.test_step(pseudo_collate([data]))[0].pred_instances
        assert torch.equal(data["inputs"], image.flip(0)), "BGR"
        assert len(found) == len(expected) >= 10
        _assert_same(found, expected)


# Everything is drawn, so that nothing is random: regions of an image, and anchors.
ALL = 100_000
OBJECTS = [[20.0, 30, 90, 110], [60, 10, 120, 60], [5, 60, 40, 100]]


def _truth():
    labels = torch.tensor([1, 4, 1])
    masks = np.zeros((3, 112, 128), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, OBJECTS, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1) - 7] = 1
    return torch.tensor(OBJECTS), labels, masks


@pytest.mark.parametrize("independent", [False, True], ids=["softmax", "sigmoid"])
def test_losses_and_gradients(golden, independent):
    """A step with all regions: the losses of every stage, of the masks and of the RPN."""
    sizes = dict(side=128, channels=16, hidden=32, num_classes=6)
    rest = dict(use_sigmoid_ce=True) if independent else {}
    config = _detectron2("coco/cascade_mask_rcnn_vitdet_eva_g_1280", **sizes, **rest)
    config.proposal_generator.update(batch_size_per_image=ALL)
    config.roi_heads.update(batch_size_per_image=ALL, positive_fraction=0.5)
    theirs = instantiate(config).train()
    state = {name[6:]: value for name, value in golden.items() if name.startswith("state.")}
    theirs.load_state_dict(state)
    boxes, labels, masks = _truth()
    truth = Instances((112, 128), gt_boxes=Boxes(boxes), gt_classes=labels)
    truth.gt_masks = BitMasks(torch.from_numpy(masks).bool())
    with EventStorage(0):
        expected = theirs([dict(image=golden["input.image"].float(), instances=truth)])
    sum(value for name, value in expected.items() if "rpn" not in name).backward()

    train = copy.deepcopy(dict(Config.fromfile(BASE).model.train_cfg))
    train["rpn"]["sampler"]["num"] = train["rcnn"][0]["sampler"]["num"] = ALL
    train["rcnn"][0]["sampler"]["pos_fraction"] = 0.5
    loss = dict(type="EVAFederatedLoss", num_classes=6, num_sampled=0) if independent else None
    ours = _mmdet(**sizes, loss=loss, train=train).train()
    ours.load_state_dict(to_mmdet(state)[0], strict=True)
    sample = DetDataSample(metainfo=dict(img_shape=(112, 128), ori_shape=(112, 128)))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=labels, masks=BitmapMasks(masks, 112, 128)
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=labels[:0])
    data = dict(inputs=[golden["input.image"]], data_samples=[sample])
    found = ours(**ours.data_preprocessor(data, training=True), mode="loss")
    sum(value for name, value in found.items() if ".loss" in name or "mask" in name).backward()

    for stage in range(3):
        for kind, name in (("cls", "cls"), ("bbox", "box_reg")):
            mine, other = found[f"s{stage}.loss_{kind}"], expected[f"loss_{name}_stage{stage}"]
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)
    mine = found["loss_mask"].squeeze()
    torch.testing.assert_close(mine, expected["loss_mask"], atol=1e-6, rtol=1e-4)
    # each divides by another number of anchors
    ratio = sum(found["loss_rpn_bbox"]) / sum(found["loss_rpn_cls"])
    torch.testing.assert_close(
        ratio, expected["loss_rpn_loc"] / expected["loss_rpn_cls"], atol=0, rtol=1e-4
    )
    mine = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    mine = to_detectron2(mine)[0]
    for name, value in theirs.named_parameters():
        if value.grad is not None:
            scale = value.grad.abs().max().clamp(min=1e-6)
            difference = (mine[name] - value.grad).abs().max() / scale
            assert difference < 1e-2, f"{name}: {difference}"
