"""COCO-Stuff-164K with relative positions, layer scale and 9 decoder layers (official config).

Not in the paper. 80k iterations of 32 (16 A100 of 80 GB, two images each, 51.9 GB in the logs),
lr 1e-5, from `eva_psz14to16.pt`; 80,000 * 32 / 118,287 = 21.6 epochs. The parent's command.

This should give (official README): aAcc 73.93, mIoU 53.2, mAcc 66.01, single scale; the published
file `eva_sem_seg_mask2former_cocostuff_relpos_layerscale_9dec_53p2.pth` is the best snapshot,
iteration 74000 (the last one: 53.0).
"""

_base_ = "mask2former_eva_g_896_60k.py"

model = dict(
    backbone=dict(rel_pos="table", layer_scale=1.0),
    decode_head=dict(transformer_decoder=dict(num_layers=9)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-5))
train_cfg = dict(max_iters=80000)
