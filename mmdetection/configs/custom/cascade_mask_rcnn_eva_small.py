"""Own data on a CPU or a small card, without a download: the recipe of detection/ here."""

_base_ = "../demo/cascade_mask_rcnn_eva_debug.py"

from eva_mmdetection.parts import extractor, stages, testing, training  # noqa: E402

_anchors = dict(base_sizes=[16, 48, 128], scales=[1.0, 1.5, 2.0], ratios=[0.5, 1.0, 2.0])
_anchors["scale_major"] = False  # anchors in detectron2's order, as weights of either have them
_box, _mask = (extractor(side, channels=64, strides=(4, 8, 16), finest=32) for side in (7, 14))
_proposals = dict(nms_pre=1000, max_per_img=300)
model = dict(
    data_preprocessor=dict(pad_size_divisor=16),  # images keep their aspect ratio
    backbone=dict(img_size=256, canvas=256, rel_pos="none"),
    rpn_head=dict(anchor_generator=_anchors),
    roi_head=dict(bbox_roi_extractor=_box, mask_roi_extractor=_mask),
    train_cfg=dict(rpn=dict(sampler=dict(num=128)), rpn_proposal=_proposals, rcnn=stages(64)),
    test_cfg=dict(rpn=_proposals, rcnn=dict(max_per_img=100)),
)
_kinds = ("Brightness", "Contrast", "Color")
_colours = [dict(type=kind, min_mag=0.5, max_mag=1.5) for kind in _kinds]
_pipeline = training(256, ratios=(0.5, 1.5), bitmaps=True, extra=_colours)
train_dataloader = dict(
    batch_size=4,
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(pipeline=_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=testing(256)))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=640, val_interval=640)
work_dir = "output/custom_eva_small"
