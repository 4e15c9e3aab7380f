"""Test-time augmentation against the plain detector, and against passes and merges by hand."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.transforms import HFlipTransform, ResizeTransform, TransformList
from detectron2.layers import batched_nms
from PIL import Image

from eva_detection.config.recipes import drop_masks
from eva_detection.config.settings import apply_overrides
from eva_detection.inference.test_time_augmentation import (
    SIZES,
    EVARCNNWithTTA,
    with_test_time_augmentation,
)
from eva_detection.model.roi_heads import maskness

INFINITE = float("inf")
SOFT = ("model.roi_heads.use_soft_nms=True", "model.roi_heads.override_score_thresh=0.01")
HEADS = {
    "hard": (),
    "linear": (*SOFT, "model.roi_heads.iou_threshold=0.5"),
    "gaussian": (*SOFT, "model.roi_heads.method=gaussian"),
    "all classes as one, capped": (
        *SOFT,
        "model.roi_heads.class_wise=False",
        "model.roi_heads.max_detections=17",
    ),
}
MASKNESS = "model.roi_heads.maskness_thresh=0.5"


def _vary(model):
    """Weights that distinguish classes and places; an untrained detector scores all alike."""
    generator = torch.Generator().manual_seed(0)
    for predictor in model.roi_heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, generator=generator)
        torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.05, generator=generator)
    if model.roi_heads.mask_on:
        torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def build(tiny_config):
    """Function: the tiny detector, always with the same weights."""

    def build_detector(*overrides, masks=True):
        cfg = tiny_config(*overrides)
        if not masks:
            drop_masks(cfg.model, cfg.dataloader)
        torch.manual_seed(0)
        return _vary(instantiate(cfg.model))

    return build_detector


@pytest.fixture(scope="module")
def detector(build):
    return build()


def _resize(picture, height, width):
    return ResizeTransform(*picture.shape[:2], height, width).apply_image(picture)


def _entry(pixels, picture=None, **more):
    height, width = (pixels if picture is None else picture).shape[:2]
    image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
    return {"image": image, "height": height, "width": width} | more


def _detect(model, entry):
    with torch.no_grad():
        return model([entry])[0]["instances"]


def _assert_same(found, expected):
    assert len(found) == len(expected) > 3
    assert found.image_size == expected.image_size
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    boxes, others = found.pred_boxes.tensor, expected.pred_boxes.tensor
    torch.testing.assert_close(boxes, others, atol=1e-3, rtol=0)
    assert found.has("pred_masks") == expected.has("pred_masks")
    if found.has("pred_masks"):
        assert found.pred_masks.shape == expected.pred_masks.shape
        assert 0.02 < expected.pred_masks.float().mean() < 0.98, "these masks would prove nothing"
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-4


def _collect(tta, entry):
    """Candidates that enter the merge."""
    seen, suppress = [], tta.heads.suppress
    tta.heads.suppress = lambda candidates: seen.append(candidates) or suppress(candidates)
    _detect(tta, entry)
    tta.heads.suppress = suppress
    (candidates,) = seen
    return candidates


def _view(picture, height, width, flipped):
    resize = ResizeTransform(*picture.shape[:2], height, width)
    return TransformList([resize, HFlipTransform(width)] if flipped else [resize])


@torch.no_grad()
def _passes(model, picture, views):
    """Boxes, scores and classes of each view (height, width, flipped), by detectron2's means."""
    found = []
    for height, width, flipped in views:
        transform = _view(picture, height, width, flipped)
        images = model.preprocess_image([_entry(transform.apply_image(picture))])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, None)
        (result,) = model.roi_heads.detect_boxes(features, proposals, suppress=False)
        boxes = transform.inverse().apply_box(result.pred_boxes.tensor.numpy())
        found.append((torch.from_numpy(boxes).float(), result.scores, result.pred_classes))
    return found


# One size


@pytest.mark.parametrize(
    ("heads", "more"),
    [*((name, ()) for name in HEADS if name != "linear"), ("linear", (MASKNESS,))],
)
def test_one_size_is_the_plain_detector(heads, more, build, picture):
    model = build(*HEADS[heads], *more)
    plain = _detect(model, _entry(_resize(picture, 96, 128), picture))
    found = _detect(EVARCNNWithTTA(model, min_sizes=[128]), _entry(picture))
    _assert_same(found, plain)


# Where the pixels come from


def test_a_resized_image_is_read_again_in_full_resolution(detector, picture, tmp_path):
    file = str(tmp_path / "picture.png")
    Image.fromarray(picture).save(file)
    tta = EVARCNNWithTTA(detector, min_sizes=[128])
    expected = _detect(tta, _entry(picture))
    small = _resize(picture, 30, 40)
    _assert_same(_detect(tta, _entry(small, picture, file_name=file)), expected)
    _assert_same(_detect(tta, _entry(picture, file_name="is not opened")), expected)
    # without a file the small one is all there is
    again = _detect(tta, _entry(small, picture))
    assert again.image_size == (75, 100)
    enlarged = _detect(detector, _entry(_resize(small, 96, 128), picture))
    _assert_same(again, enlarged)
    with pytest.raises(SizeMismatchError, match=r"picture\.png"):
        _detect(tta, _entry(small, small, file_name=file) | {"height": 99})


# Several passes

VIEWS = [(72, 96, False), (72, 96, True), (96, 128, False), (96, 128, True)]


def test_candidates_and_their_merge_by_hand(detector, picture):
    tta = EVARCNNWithTTA(detector, min_sizes=[96, 128], flip=True)
    by_hand = _passes(detector, picture, VIEWS)
    boxes, scores, classes = (torch.cat(parts) for parts in zip(*by_hand, strict=True))
    candidates = _collect(tta, _entry(picture))
    assert candidates.image_size == (75, 100)
    assert torch.equal(candidates.pred_classes, classes)
    assert torch.equal(candidates.scores, scores)
    torch.testing.assert_close(candidates.pred_boxes.tensor, boxes, atol=1e-4, rtol=0)
    assert len(candidates) > 4 * 30

    found = _detect(tta, _entry(picture))
    threshold = detector.roi_heads.box_predictor[-1].test_nms_thresh
    boxes = candidates.pred_boxes.tensor
    kept = batched_nms(boxes, scores, classes, threshold)
    assert len(found) == detector.roi_heads.box_predictor[-1].test_topk_per_image == 30
    assert torch.equal(found.scores, scores[kept[:30]])
    assert torch.equal(found.pred_classes, classes[kept[:30]])
    torch.testing.assert_close(found.pred_boxes.tensor, boxes[kept[:30]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(128, 128), (128, 88)], ids=str)
def test_a_mirrored_image_gives_mirrored_results(size, build):
    """Also of an image that is narrower than the canvas."""
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    tta = EVARCNNWithTTA(build(MASKNESS), min_sizes=[128], flip=True)
    found, mirrored = (_detect(tta, _entry(image)) for image in (picture, picture[:, ::-1]))
    mirrored.pred_masks = mirrored.pred_masks.flip(2)
    x0, y0, x1, y1 = mirrored.pred_boxes.tensor.unbind(1)
    mirrored.pred_boxes.tensor = torch.stack((size[1] - x1, y0, size[1] - x0, y1), 1)
    _assert_same(found, mirrored)
    plain = _detect(EVARCNNWithTTA(tta.model, min_sizes=[128]), _entry(picture))
    assert not torch.equal(plain.scores, found.scores)


RANGES = [(300, None), (None, 500.5), (100, 900)]


def test_area_ranges_in_the_original_image(detector, picture):
    tta = EVARCNNWithTTA(detector, min_sizes=[96, 112, 128], area_ranges=RANGES)
    views = [(72, 96, False), (84, 112, False), (96, 128, False)]
    expected = []
    for found, (low, high) in zip(_passes(detector, picture, views), RANGES, strict=True):
        rows = zip(*(part.tolist() for part in found), strict=True)
        kept = [
            (score, label)
            for (x0, y0, x1, y1), score, label in rows
            if (low or 0) <= (x1 - x0) * (y1 - y0) <= (high or INFINITE)
        ]
        assert 0 < len(kept) < len(found[0])
        expected += kept
    candidates = _collect(tta, _entry(picture))
    given = zip(candidates.scores.tolist(), candidates.pred_classes.tolist(), strict=True)
    assert list(given) == expected


# Masks


@torch.no_grad()
def test_masks_come_from_one_size_and_its_mirror_image(build, picture):
    model = build(MASKNESS)
    tta = EVARCNNWithTTA(model, min_sizes=[128, 96], flip=True, mask_size=96)
    found, scores = _detect(tta, _entry(picture)), []
    merged = model.roi_heads.suppress(_collect(tta, _entry(picture)))
    masks = []
    for flipped in (False, True):
        transform = _view(picture, 72, 96, flipped)
        images = model.preprocess_image([_entry(transform.apply_image(picture))])
        given = type(merged)((72, 96), **merged.get_fields())
        boxes = transform.apply_box(merged.pred_boxes.tensor.numpy())
        given.pred_boxes = type(merged.pred_boxes)(torch.from_numpy(boxes).float())
        features = model.backbone(images.tensor)
        (result,) = model.roi_heads.forward_with_given_boxes(features, [given])
        masks.append(result.pred_masks.flip(3) if flipped else result.pred_masks)
        scores.append(result.scores)
    mean = (masks[0] + masks[1]) / 2
    rescored = merged.scores * maskness(mean, 0.5)
    torch.testing.assert_close(found.scores, rescored, atol=1e-5, rtol=0)
    assert not torch.allclose(found.scores, scores[0], atol=1e-4)


# Settings


def test_the_official_area_ranges(detector):
    tta = EVARCNNWithTTA(detector, area_ranges="official")
    assert [tuple(scale) for scale in tta.scales] == [(size, size) for size in SIZES]
    large = [(1024, INFINITE), (256, INFINITE), (0, INFINITE)]
    assert tta.area_ranges == [*large, (0, 256), (0, 576), (0, 256)]


# In a config


def test_the_recipe(load_config, detector):
    overrides = ("test.aug.min_sizes=[96,128]", "test.aug.mask_size=128", "test.aug.flip=True")
    cfg = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_tta")
    assert tuple(cfg.test.aug.min_sizes) == SIZES
    assert with_test_time_augmentation(cfg, detector).mask_scale == SIZES.index(1536)
    apply_overrides(cfg, overrides)
    tta = with_test_time_augmentation(cfg, detector)
    assert (tta.scales, tta.mask_scale, tta.flip) == (((96, 96), (128, 128)), 1, True)
    assert cfg.model.roi_heads.max_detections == 1000
    assert cfg.model.roi_heads.use_soft_nms
    assert cfg.model.backbone.square_pad == min(SIZES)
