"""COCO-Stuff-164K with EVA-L: no published run; drop path and layer decay of ViT-Adapter-L.

From `eva_l_psz14.pt`, its patches resampled to 16 px. 60,000 * 32 / 118,287 = 16.2 epochs, lr 2e-5,
on 32 GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_60k.py"

from eva_segmentation.parts import with_adapter  # noqa: E402

model = with_adapter("eva_l_patch16", drop_path_rate=0.3)
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay=0.9))
load_from = "eva_l_psz14.pt"
