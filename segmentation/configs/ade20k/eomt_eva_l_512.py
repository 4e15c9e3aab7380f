"""ADE20K with EoMT on EVA-L (arXiv 2503.19108): its recipe for DINOv2-L, no published run of EVA's.

39,153 * 16 / 20,210 = 31.0 epochs on 4 GPUs, 4 images each; warm-ups of 500 and 1,000. The last
block learns at 0.8 of the peak, that of the public code at the peak.

    torchrun --nproc-per-node 4 segmentation/train.py segmentation/configs/ade20k/eomt_eva_l_512.py

With DINOv2-L this should give (EoMT): mIoU 58.4.
"""

_base_ = ["../_base_/eomt.py", "../_base_/ade20k_512.py", "../_base_/eomt_run.py"]

from eva_segmentation.parts import plain_vit  # noqa: E402

model = dict(backbone=plain_vit("eva_l_patch16", img_size=512, drop_path_rate=0.0, final_norm=True))
train_dataloader = dict(batch_size=4)
_warmups = dict(head_warmup=500 / 39153, vit_warmup=1000 / 39153)
param_scheduler = [dict(type="TwoStagePolyLR", by_epoch=False, **_warmups)]
train_cfg = dict(max_iters=39153, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
load_from = "eva_l_psz14.pt"
