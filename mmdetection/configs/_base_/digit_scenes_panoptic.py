"""Digit scenes with panoptic segments: ten digits are things, photographs' four kinds stuff."""

_base_ = "digit_scenes.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

_digits, _photographs = tuple("0123456789"), ("brick", "grass", "gravel", "other")
_names = dict(
    classes=_digits + _photographs,
    thing_classes=_digits,
    stuff_classes=_photographs,
)
_colours = [dict(type=kind, min_mag=0.8, max_mag=1.2) for kind in ("Brightness", "Contrast")]
_pipeline = training(128, ratios=(0.8, 1.25), flip=0.0, panoptic=True, extra=_colours)
_root = "output/datasets/digit_scenes/panoptic"
_data = dict(type="CocoPanopticDataset", data_root=_root, metainfo=_names)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file="annotations/panoptic_train.json",
        data_prefix=dict(img="train", seg="annotations/panoptic_train"),
        pipeline=_pipeline,
        **_data,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file="annotations/panoptic_val.json",
        data_prefix=dict(img="val", seg="annotations/panoptic_val"),
        test_mode=True,
        pipeline=testing(128),
        **_data,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="PanopticMetric",
    ann_file=f"{_root}/annotations/panoptic_val.json",
    seg_prefix=f"{_root}/annotations/panoptic_val",
)
test_evaluator = val_evaluator
