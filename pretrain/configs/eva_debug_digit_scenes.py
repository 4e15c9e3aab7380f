"""Debug twin: a small ViT learns the features of the bundled backbone, on the digit scenes.

    python tools/make_demo_data.py --output output/datasets/digit_scenes
    python pretrain/train.py pretrain/configs/eva_debug_digit_scenes.py

About a minute on two CPU cores. The teacher is `eva_debug`, in place of CLIP, which would have to
be downloaded. 8 x 8 patches, of which 26 are masked as in the paper (40 %). 2000 scenes / 16 = 125
steps an epoch, 4 epochs = 500 steps.

This should give: a validation cosine above 0.74 (`val_cosine`); the best constant prediction has
0.68.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import DataConfig, MaskConfig, PretrainConfig, StudentConfig, TeacherConfig

SCENES = "output/datasets/digit_scenes/coco"

config = PretrainConfig(
    student=StudentConfig(variant="eva_debug", image_size=64),
    teacher=TeacherConfig(
        library="eva", model="eva_debug", weights="eva_debug", image_size=64, precision="fp32"
    ),
    data=DataConfig(train=f"{SCENES}/train", val=f"{SCENES}/val"),
    mask=MaskConfig(num_masked=26, min_block=4),
    optimizer=OptimizerConfig(
        lr=2e-3, min_lr=1e-5, warmup_epochs=0.2, betas=(0.9, 0.98), eps=1e-6, clip_grad=3.0
    ),
    run=RunConfig(output=Path("output/pretrain_debug"), epochs=4, batch_size=16, workers=0),
)
