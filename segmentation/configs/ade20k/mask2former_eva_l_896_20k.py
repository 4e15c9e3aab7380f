"""ADE20K with EVA-L: no published run; name the COCO-Stuff segmentor with `--load-from`.

20,000 * 64 / 20,210 = 63.3 epochs on 64 GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_20k.py"

model = dict(
    backbone=dict(
        embed_dim=1024,
        depth=24,
        num_heads=16,
        mlp_dim=4096,
        qkv_bias="qkv",
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.9))
load_from = None
