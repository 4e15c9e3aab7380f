"""EVA-CLIP-g (paper section 2.3.5, Table 10a): 11B samples of LAION-400M at 224 px.

256 processes x 160 pairs = 40,960 a step ("41k"); 28 passes over 400M pairs = 11.2B, 273,000 steps.
Published: the first weights, batch, precision, samples, stochastic depth 0.4, no patch dropout,
crops of 0.9 to 1. Never published: optimizer, learning rates, decays and warm-up. What stands here
is the command of the next larger model, EVA-CLIP-g-plus, whose batch is 2.8 times this one.

This should give (paper, Table 10b): ImageNet-1K zero-shot 78.5 top-1, 75.7 on average over twelve.
"""

from pathlib import Path

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ContrastiveConfig(
    model=ModelConfig(
        variant="eva_g_patch14",
        image_size=224,
        drop_path_rate=0.4,
        activation_checkpointing=True,
        init_checkpoint="eva_psz14.pt",
        text="clip_l",
        text_checkpoint="ViT-L-14.pt",  # OpenAI's archive
        embed_dim=1024,
    ),
    data=DataConfig(train="laion400m/{00000..41455}.tar"),
    vision=TowerConfig(lr=4e-4, weight_decay=0.05, layer_decay=0.85),
    text=TowerConfig(lr=4e-5, weight_decay=0.05, layer_decay=0.75),
    optimizer=OptimizerConfig(
        name="deepspeed_lamb",
        lr=5e-4,
        warmup_epochs=0.205,  # 2000 steps
        betas=(0.9, 0.999),
        eps=1e-8,
        clip_grad=5.0,
    ),
    run=RunConfig(
        output=Path("output/eva_clip_g"),
        epochs=28,
        batch_size=160,
        precision="fp16",
        seed=4096,
        checkpoint_every=1000,
        max_bad_samples=400_000,  # images of the web: one of a thousand may be damaged
    ),
)
