"""EVA-L with adapters on one card of 24 GB, for own data: crops of 512 px, 2 x 8 images."""

_base_ = "mask2former_eva_g_512_24gb.py"

from eva_segmentation.parts import with_adapter  # noqa: E402

model = with_adapter("eva_l_patch16", drop_path_rate=0.3, freeze_blocks=0)
lora = dict(rank=16)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(accumulative_counts=8, optimizer=dict(lr=5e-5))
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=4000, by_epoch=False)]
train_cfg = dict(max_iters=40000)
load_from = "eva_l_psz14.pt"
