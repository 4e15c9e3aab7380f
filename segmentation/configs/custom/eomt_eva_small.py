"""Own data on a CPU or a small card, without a download: EoMT on `eva_debug` at 256 px."""

_base_ = "../demo/eomt_eva_debug.py"

from eva_segmentation.parts import multi_scale, testing, training  # noqa: E402

model = dict(
    data_preprocessor=dict(size=(256, 256)),
    backbone=dict(img_size=256),
    test_cfg=dict(crop_size=(256, 256), stride=(171, 171)),
)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=training(256)))
test_pipeline = testing(256)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_model = dict(_delete_=True, type="StreamingTTA")
tta_pipeline = multi_scale((192, 256, 320), window=256)
train_cfg = dict(max_iters=600, val_interval=300)
work_dir = "output/custom_eomt_small"
