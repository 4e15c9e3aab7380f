"""AdamW with layer-wise learning-rate decay; every trainable parameter decays (Table 18)."""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch.optim import AdamW

from eva_backbone import get_vit_lr_decay_rate

optimizer = L(AdamW)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}",
        weight_decay_norm=None,
        overrides={},
        lr_factor_func=partial(get_vit_lr_decay_rate, lr_decay_rate=0.9, num_layers=40),
    ),
    lr=2.5e-5,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.1,
)

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1], milestones=[40000], num_updates="${train.max_iter}"
    ),
    warmup_length=500 / 45000,
    warmup_factor=0.001,
)
