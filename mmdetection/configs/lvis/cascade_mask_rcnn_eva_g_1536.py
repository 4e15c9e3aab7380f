"""LVIS v1 evaluation of EVA-g at 1536 px, 1000 detections an image (paper Table 18).

    torchrun --nproc-per-node 8 mmdetection/test.py lvis/cascade_mask_rcnn_eva_g_1536 eva_lvis.pth

This should give (official README, detectron2), maskness included: box AP 62.2, mask AP 55.0.
"""

_base_ = "cascade_mask_rcnn_eva_g_1280.py"

from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(
    data_preprocessor=dict(pad_size_divisor=1536),
    backbone=dict(rel_pos="beit"),
    test_cfg=dict(rcnn=dict(score_thr=0.001, max_per_img=1000, maskness_thr=0.5)),
)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=training(1536))))
val_dataloader = dict(dataset=dict(pipeline=testing(1536)))
test_dataloader = val_dataloader
val_evaluator = dict(max_dets=1000)
test_evaluator = val_evaluator
load_from = "eva_lvis.pth"
work_dir = "output/lvis_eva_g_1536"
