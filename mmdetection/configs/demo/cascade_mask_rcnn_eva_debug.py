"""The COCO recipe on a small scale: digit scenes on two CPU cores, from the bundled `eva_debug`.

The detector, data and schedule of the debug recipe of detection/, in mmdetection.

    python tools/make_demo_data.py --output output/datasets/digit_scenes
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 python mmdetection/train.py \
        demo/cascade_mask_rcnn_eva_debug --output output/digit_scenes_mmdet

450 * 8 / 2,000 = 1.8 epochs; lr 1e-3, a warm-up of a twentieth and a cosine.
"""

_base_ = [
    "../_base_/models/cascade_mask_rcnn_eva_debug.py",
    "../_base_/digit_scenes.py",
    "../_base_/debug_run.py",
]

train_cfg = dict(max_iters=450, val_interval=450)
work_dir = "output/demo_eva_debug"
