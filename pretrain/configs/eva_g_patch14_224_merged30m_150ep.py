"""EVA: ViT-g on 29.6 million images, 150 epochs (paper, section 2.2 and Table 3).

    torchrun --nnodes 16 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        pretrain/train.py pretrain/configs/eva_g_patch14_224_merged30m_150ep.py

128 A100-40GB, fp16, ZeRO-1: 26.5 GB a GPU, 3150 images/s, 14.5 days (paper). 128 processes x 32
images = 4096 a step; 29.66M images / 4096 = 7242 steps an epoch, 150 epochs = 1,086,300 steps.

Gradient clipping, warm-up, the last learning rate and the flip are from the official command, the
paper is silent. This should give: a training cosine of 0.749, and 0.777 on validation (official
log); the released weights are `eva_psz14.pt`.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import DataConfig, PretrainConfig, StudentConfig, TeacherConfig

config = PretrainConfig(
    student=StudentConfig(variant="eva_g_patch14", image_size=224, drop_path_rate=0.1),
    teacher=TeacherConfig(model="ViT-L-14", weights="openai", image_size=224, precision="fp16"),
    data=DataConfig(train=str(Path(__file__).with_name("merged30m.toml"))),
    optimizer=OptimizerConfig(
        lr=1e-3,
        min_lr=1e-5,
        warmup_epochs=2,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.05,
        clip_grad=3.0,
    ),
    run=RunConfig(
        output=Path("output/eva_g_pretrain"),
        epochs=150,
        batch_size=32,
        precision="fp16",
        workers=10,
    ),
)
