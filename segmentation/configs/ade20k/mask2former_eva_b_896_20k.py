"""ADE20K with EVA-B: no published run; name the COCO-Stuff segmentor with `--load-from`.

20,000 * 64 / 20,210 = 63.3 epochs on 64 GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_20k.py"

from eva_segmentation.parts import with_adapter  # noqa: E402

model = with_adapter("eva_b_patch16", drop_path_rate=0.2)
optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay=0.85))
load_from = None
