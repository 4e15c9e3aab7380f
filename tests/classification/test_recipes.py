"""What recipes do to images, beside the official logs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data as photographs

from eva_backbone.variants import CLIP_MEAN
from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig
from eva_classification.training import RATIO, CropOnce, training_transform
from eva_engine.commands.training import load_recipe

CONFIGS = Path(__file__).parents[2] / "classification" / "configs"


def load(name):
    return load_recipe(CONFIGS / f"{name}.py", ClassificationConfig)


def test_the_transform_of_a_recipe():
    """timm's parts with the official settings."""
    config = load("eva_g_patch14_in1k_336px")
    transform = training_transform(336, config.augment, config.data)
    crop, flip, policy, *rest = transform.transforms
    assert (tuple(crop.size), tuple(crop.scale), crop.ratio) == ((336, 336), (0.08, 1.0), RATIO)
    assert str(crop.interpolation).rpartition(".")[2].lower() == "bicubic"
    assert flip.p == 0.5
    (operation, *_) = policy.ops
    assert len(policy.ops) == 15
    assert policy.num_layers == 2
    assert operation.magnitude == 9
    assert operation.magnitude_std == 0.5
    fill = tuple(min(255, round(255 * value)) for value in CLIP_MEAN)
    assert operation.kwargs["fillcolor"] == fill == (123, 117, 104)
    assert {op.hparams["translate_const"] for op in policy.ops} == {int(336 * 0.45)}
    assert [type(part).__name__ for part in rest] == ["MaybeToTensor", "Normalize"]
    torch.testing.assert_close(rest[1].mean, torch.tensor(CLIP_MEAN))
    image = transform(Image.fromarray(photographs.chelsea()))
    assert image.shape == (3, 336, 336)
    assert image.dtype == torch.float32


def test_erasing_and_crops_of_one_draw_reach_the_images():
    augment = AugmentConfig(crop="once", auto_augment="", random_erase=1.0, flip=0.0)
    transform = training_transform(64, augment, DataConfig(train="unused"))
    assert isinstance(transform.transforms[0], CropOnce)
    assert type(transform.transforms[-1]).__name__ == "RandomErasing"
    white = Image.new("RGB", (80, 60), (255, 255, 255))
    assert transform(white).unique().numel() > 100  # noise in the erased part


def test_a_crop_of_one_draw_is_cut_to_the_image():
    """Its distribution beside an independent draw in numpy: 26 % of the crops are cut."""
    width, height, draws = 500, 375, 4000
    image = Image.new("RGB", (width, height))
    crop = CropOnce(224, (0.08, 1.0), RATIO)
    boxes = np.array([crop.get_params(image, (0.08, 1.0), RATIO) for _ in range(draws)])
    top, left, high, wide = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()
    chance = np.random.default_rng(0)
    area = width * height * chance.uniform(0.08, 1, draws)
    aspect = np.exp(chance.uniform(np.log(RATIO[0]), np.log(RATIO[1]), draws))
    expected = np.minimum(np.sqrt(area * aspect), width) * np.minimum(
        np.sqrt(area / aspect), height
    )
    found = high * wide / (width * height)
    expected /= width * height
    error = found.std() / draws**0.5
    assert abs(found.mean() - expected.mean()) < 5 * error
    assert abs((found > 0.8).mean() - (expected > 0.8).mean()) < 0.04
    cut = ((high == height) | (wide == width)).mean()
    assert 0.2 < cut < 0.32
    assert crop(image).size == (224, 224)
