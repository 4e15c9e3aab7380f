"""Parts of configs as functions that recipes call: pipelines, and the three stages of the heads.

The pipelines are detectron2's augmentations of the official runs in mmdetection's transforms. A
config imports them after its `_base_`, by which mmengine knows a config that may import anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Steps = list[dict[str, Any]]

NORM = dict(type="EVAChannelNorm", eps=1e-6)
_DELTAS = (10, 20, 30)  # detectron2's weight of a box's centre at each stage; half of it for sizes


def training(
    side: int,
    *,
    ratios: tuple[float, float] = (0.1, 2.0),
    flip: float = 0.5,
    masks: bool = True,
    bitmaps: bool = False,
    panoptic: bool = False,
    extra: Sequence[dict[str, Any]] = (),
) -> Steps:
    """Draw flip, size and crop: large-scale jitter (ViTDet, arXiv 2203.16527).

    Args:
        side: Height and width of the crop, and of the square that an image is fitted into before
            the ratios multiply its size.
        ratios: Smallest and largest factor of the random size.
        flip: Probability of a mirrored image.
        masks: Whether to read masks; boxes are then those of what is left of the masks.
        bitmaps: Whether to hold masks as pixels, which run-length codes need; else as polygons.
        panoptic: Whether to read COCO's panoptic segments, things as masks and all as a map.
        extra: Further transforms of the crop, such as mmdetection's `Brightness`.
    """
    read = dict(with_mask=True, poly2mask=bitmaps) if masks else {}
    steps: Steps = [dict(type="LoadImageFromFile")]
    if panoptic:
        steps.append(dict(type="LoadPanoptic"))
    else:
        steps.append(dict(type="LoadAnnotations", with_bbox=True, **read))
    if flip:
        steps.append(dict(type="RandomFlip", prob=flip))
    steps += [
        dict(
            type="RandomResize",
            scale=(side, side),
            ratio_range=ratios,
            keep_ratio=True,
            backend="pillow",
        ),
        dict(
            type="RandomCrop",
            crop_size=(side, side),
            crop_type="absolute",
            recompute_bbox=masks,
            allow_negative_crop=True,
        ),
    ]
    filters = dict(
        min_gt_bbox_wh=(1e-5, 1e-5), by_mask=masks, keep_empty=panoptic
    )  # of stuff alone
    return [*steps, *extra, dict(type="FilterAnnotations", **filters), dict(type="PackDetInputs")]


def testing(side: int) -> Steps:
    """Fit an image into a square of a side; predictions are at its own size."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(side, side), keep_ratio=True, backend="pillow"),
        dict(type="PackDetInputs", meta_keys=keys),
    ]


def box_heads(
    num_classes: int,
    *,
    channels: int = 256,
    hidden: int = 1024,
    convs: int = 4,
    loss_cls: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """State the three box heads: convolutions with LayerNorm and one linear layer.

    Args:
        num_classes: Classes, without background.
        channels: Channels of the pyramid and of the convolutions.
        hidden: Width of the linear layer.
        convs: Convolutions of each head.
        loss_cls: Loss of the classes; None for softmax cross entropy. LVIS takes
            `dict(type="EVAFederatedLoss", num_classes=...)`.
    """
    softmax = dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0)
    return [
        dict(
            type="ConvFCBBoxHead",
            num_shared_convs=convs,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=hidden,
            roi_feat_size=7,
            num_classes=num_classes,
            norm_cfg=dict(NORM),
            reg_class_agnostic=True,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder",
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[1 / weight, 1 / weight, 2 / weight, 2 / weight],
            ),
            loss_cls=dict(loss_cls or softmax),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        )
        for weight in _DELTAS
    ]


def classes(num_classes: int, *, masks: bool = True, **box: Any) -> dict[str, Any]:
    """State what of `roi_head` depends on the number of classes; see `box_heads`."""
    heads: dict[str, Any] = dict(bbox_head=box_heads(num_classes, **box))
    if masks:
        heads["mask_head"] = dict(num_classes=num_classes)
    return heads


def extractor(
    size: int, *, channels: int = 256, strides: Sequence[int] = (4, 8, 16, 32), finest: float = 56
) -> dict[str, Any]:
    """State an extractor of maps of a size; a box below 2 * `finest` px reads the first level."""
    return dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=size, sampling_ratio=0),
        out_channels=channels,
        featmap_strides=list(strides),
        finest_scale=finest,
    )


def stages(regions: int = 512) -> list[dict[str, Any]]:
    """State the training of the three stages, of which the first draws some regions an image."""
    draw = dict(
        type="RandomSampler",
        num=regions,
        pos_fraction=0.25,
        neg_pos_ub=-1,
        add_gt_as_proposals=True,
    )
    return [
        dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=overlap,
                neg_iou_thr=overlap,
                min_pos_iou=overlap,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
            sampler=draw if overlap == 0.5 else dict(type="PseudoSampler"),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        )
        for overlap in (0.5, 0.6, 0.7)
    ]
