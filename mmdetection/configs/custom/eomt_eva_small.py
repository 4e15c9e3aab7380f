"""Own data with masks on a CPU or a small card, without a download: EoMT on `eva_debug`."""

_base_ = "../demo/eomt_eva_debug.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),  # images keep their aspect ratio
    backbone=dict(img_size=256, canvas=256),
)
_colours = [dict(type=k, min_mag=0.5, max_mag=1.5) for k in ("Brightness", "Contrast", "Color")]
_pipeline = training(256, ratios=(0.5, 1.5), bitmaps=True, extra=_colours)
train_dataloader = dict(
    batch_size=4,
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(pipeline=_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=testing(256)))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=640, val_interval=640)
work_dir = "output/custom_eomt_small"
