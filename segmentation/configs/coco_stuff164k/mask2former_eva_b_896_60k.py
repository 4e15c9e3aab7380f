"""COCO-Stuff-164K with EVA-B: no published run and no published weights, not tuned.

Name a backbone of your own with `--load-from`. 60,000 * 32 / 118,287 = 16.2 epochs, lr 4e-5, on 32
GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_60k.py"

from eva_segmentation.parts import with_adapter  # noqa: E402

model = with_adapter("eva_b_patch16", drop_path_rate=0.2)
optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay=0.85))
load_from = None
