"""ViT-B learns the features of a larger ViT on own images, without masks: `eva distill`.

Four fixed crops of each image, 256 a step: for 10,000 images 156 steps an epoch, and 22 GB for the
features of ViT-g (14 x 14 x 1408 in fp16), 16 GB for ViT-L's. This should give: not published.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_engine.config import RunConfig
from eva_pretrain.config import DataConfig, PretrainConfig, TeacherConfig

config = load_recipe(
    Path(__file__).with_name("eva_b_patch16_224_distill_300ep.py"),
    PretrainConfig,
    teacher=TeacherConfig(
        library="eva",
        model="",
        weights="eva_psz14.pt",
        image_size=0,
        precision="auto",
        views=4,
        cache="output/student_features",
    ),
    data=DataConfig(train="datasets/own_images", crop_scale=(0.4, 1.0)),
    optimizer={"lr": 5e-4, "warmup_epochs": 1},
    run=RunConfig(output=Path("output/student"), epochs=25, batch_size=64, accumulate=4, workers=4),
)
