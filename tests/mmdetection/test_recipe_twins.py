"""Augmentations, anchors, thresholds and poolers: each recipe has those of its twin."""

import math
from collections.abc import Sequence

import pytest

from eva_openmmlab import config as configuration
from eva_runs.recipes import list_recipes

RECIPES = [r.name for r in list_recipes("mmdetection") if "rcnn" in r.name]  # others have no twin
COLOURS = {
    "Brightness": "RandomBrightness",
    "Contrast": "RandomContrast",
    "Color": "RandomSaturation",
}


def of_detectron2(cfg):
    """Settings under names of our own; each as detectron2 reads it, defaults included."""
    mapper, model = cfg.dataloader.train.mapper, cfg.model
    steps = {step._target_.__name__: step for step in mapper.augmentations}
    jitter, crop = steps["ResizeScale"], steps["FixedSizeCrop"]
    rpn, roi = model.proposal_generator, model.roi_heads
    masks = mapper.use_instance_mask
    found = {
        "order": [*steps],
        "flip": steps["RandomFlip"].get("prob", 0.5) if "RandomFlip" in steps else 0,
        "ratios": (jitter.min_scale, jitter.max_scale),
        "scale": (jitter.target_width, jitter.target_height),
        "crop": tuple(crop.crop_size),
        "masks": masks,
        "boxes from masks": mapper.get("recompute_boxes", False),
        "bitmaps": masks and mapper.get("instance_mask_format", "polygon") == "bitmask",
        "colours": {
            kind: (steps[name].intensity_min, steps[name].intensity_max)
            for kind, name in COLOURS.items()
            if name in steps
        },
        "test size": tuple(
            (step.short_edge_length, step.max_size)
            for step in cfg.dataloader.test.mapper.augmentations
        ),
        "anchor sizes": [size for level in rpn.anchor_generator.sizes for size in level],
        "anchor ratios": list(rpn.anchor_generator.aspect_ratios),
        "anchor strides": list(rpn.anchor_generator.strides),
        "anchor offset": rpn.anchor_generator.offset,
        "rpn nms": (rpn.nms_thresh,) * 2,
        "rpn before nms": tuple(rpn.pre_nms_topk),
        "rpn after nms": tuple(rpn.post_nms_topk),
        "rpn thresholds": tuple(rpn.anchor_matcher.thresholds),
        "rpn low quality": rpn.anchor_matcher.allow_low_quality_matches,
        "rpn draws": (rpn.batch_size_per_image, rpn.positive_fraction),
        "rpn deltas": [1 / weight for weight in rpn.box2box_transform.weights],
        "roi thresholds": [one.thresholds[0] for one in roi.proposal_matchers],
        "roi low quality": {one.allow_low_quality_matches for one in roi.proposal_matchers},
        "roi draws": (roi.batch_size_per_image, roi.positive_fraction),
        "roi deltas": [
            [1 / w for w in one.box2box_transform.weights] for one in roi.box_predictors
        ],
        "box pooler": pooler(roi.box_pooler),
        "mask pooler": pooler(roi.mask_pooler) if roi.get("mask_head") else None,
    }
    if roi.get("use_soft_nms"):
        found["nms"] = (roi.method, roi.iou_threshold)
    else:
        (threshold,) = {one.get("test_nms_thresh", 0.5) for one in roi.box_predictors}
        found["nms"] = ("nms", threshold)
    return found


def pooler(cfg):
    """Size, samples, strides, and the side of the boxes below twice which the first level is."""
    assert cfg.pooler_type == "ROIAlignV2"  # aligned, as mmcv's is by default
    size, level = cfg.get("canonical_box_size", 224), cfg.get("canonical_level", 4)
    first = -math.log2(cfg.scales[0])
    strides = [1 / scale for scale in cfg.scales]
    return (cfg.output_size, cfg.sampling_ratio, strides, size * 2 ** (first - level))


NAMES = {"RandomResize": "ResizeScale", "RandomCrop": "FixedSizeCrop", "RandomFlip": "RandomFlip"}
NAMES |= COLOURS


def of_mmdetection(cfg):
    """The same settings of a recipe here; training data of several parts must agree."""
    parts = configuration.parts_of(cfg.train_dataloader.dataset)
    settings = [of_pipeline(part.pipeline) for part in parts]
    assert all(one == settings[0] for one in settings)
    rpn, roi, train, test = (
        cfg.model.rpn_head, cfg.model.roi_head, cfg.model.train_cfg, cfg.model.test_cfg
    )  # fmt: skip
    anchors, proposals = rpn.anchor_generator, (train.rpn_proposal, test.rpn)
    assert {one.nms.type for one in proposals} == {"nms"}
    assert {one.min_bbox_size for one in proposals} == {0}
    for stage in train.rcnn:
        assert stage.assigner.neg_iou_thr == stage.assigner.pos_iou_thr
    first, nms = train.rcnn[0].sampler, test.rcnn.nms
    return settings[0] | {
        "test size": tuple(
            tuple(step.scale) for step in cfg.test_dataloader.dataset.pipeline if "scale" in step
        ),
        "anchor sizes": [side * scale for side in anchors.base_sizes for scale in anchors.scales],
        "anchor ratios": list(anchors.ratios),
        "anchor strides": list(anchors.strides),
        "anchor offset": anchors.get("center_offset", 0.0),
        "rpn nms": tuple(one.nms.iou_threshold for one in proposals),
        "rpn before nms": tuple(one.nms_pre for one in proposals),
        "rpn after nms": tuple(one.max_per_img for one in proposals),
        "rpn thresholds": (train.rpn.assigner.neg_iou_thr, train.rpn.assigner.pos_iou_thr),
        "rpn low quality": train.rpn.assigner.match_low_quality,
        "rpn draws": (train.rpn.sampler.num, train.rpn.sampler.pos_fraction),
        "rpn deltas": list(rpn.bbox_coder.get("target_stds", (1.0, 1.0, 1.0, 1.0))),
        "roi thresholds": [stage.assigner.pos_iou_thr for stage in train.rcnn],
        "roi low quality": {stage.assigner.match_low_quality for stage in train.rcnn},
        "roi draws": (first.num, first.pos_fraction),
        "roi deltas": [head.bbox_coder.target_stds for head in roi.bbox_head],
        "box pooler": extractor(roi.bbox_roi_extractor),
        "mask pooler": extractor(roi.mask_roi_extractor) if roi.mask_head else None,
        "nms": (nms.get("method", "nms"), nms.iou_threshold),
    }


def of_pipeline(pipeline):
    steps = {step.type: step for step in pipeline}
    jitter, crop, reader = (
        steps[kind] for kind in ("RandomResize", "RandomCrop", "LoadAnnotations")
    )
    assert jitter.keep_ratio
    assert crop.crop_type == "absolute"
    return {
        "order": [NAMES[kind] for kind in steps if kind in NAMES],
        "flip": steps["RandomFlip"].prob if "RandomFlip" in steps else 0,
        "ratios": tuple(jitter.ratio_range),
        "scale": tuple(jitter.scale),
        "crop": tuple(crop.crop_size),
        "masks": reader.get("with_mask", False),
        "boxes from masks": crop.recompute_bbox,
        "bitmaps": reader.get("with_mask", False) and reader.poly2mask,
        "colours": {
            kind: (steps[kind].min_mag, steps[kind].max_mag) for kind in COLOURS if kind in steps
        },
    }


def extractor(cfg):
    layer = cfg.roi_layer
    assert (cfg.type, layer.type) == ("SingleRoIExtractor", "RoIAlign")
    assert layer.get("aligned", True)
    return (layer.output_size, layer.sampling_ratio, cfg.featmap_strides, cfg.finest_scale)


def plain(value):
    """Compare numbers and sequences of both kinds of configs."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, Sequence | set) and not isinstance(value, str):
        return tuple(plain(one) for one in value)
    return round(value, 9) if isinstance(value, float) else value


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_does_what_its_twin_does(name, load_config, twin):
    ours, theirs = plain(of_mmdetection(load_config(name))), plain(of_detectron2(twin(name)))
    assert ours == theirs
