"""ADE20K with EVA-L, the simple pyramid and UPerNet: light, no published run, not tuned.

From `eva_l_psz14.pt`, its patches resampled to 16 px. 160,000 * 16 / 20,210 = 126.7 epochs on 8
GPUs, two images each:

    torchrun --nproc-per-node 8 segmentation/train.py \
        segmentation/configs/ade20k/upernet_eva_l_512_160k.py
"""

_base_ = ["../_base_/upernet_eva_l.py", "../_base_/ade20k_512.py", "../_base_/run.py"]

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay=0.9, official_head_rule=False)
)
train_cfg = dict(max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
load_from = "eva_l_psz14.pt"
