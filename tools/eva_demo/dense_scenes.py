"""Digit scenes with a target for every patch, for the pre-training of the debug backbone.

Letters: B scenes, G patches along a side, N = G * G patches, p patch size.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from eva_backbone import VARIANTS
from eva_demo.glyphs import box_of_mask
from eva_demo.scenes import Scene, SceneGenerator

SIZE = VARIANTS["eva_debug"].img_size
PATCH = VARIANTS["eva_debug"].patch_size
GRID = SIZE // PATCH
MEAN = (123.675, 116.28, 103.53)  # the detectors' normalisation, in grey levels
STD = (58.395, 57.12, 57.375)
NO_DIGIT = 10
MIN_INK = 6  # pixels of a digit in a patch that make it the patch's digit


class DenseScenes(Dataset[dict[str, Tensor]]):
    """Augmented training scenes with a target for every patch; item i depends on (seed, i).

    Args:
        length: Number of scenes.
        seed: Seed of scenes and augmentation.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        self.length, self.seed = length, seed
        # fuller scenes than the demo data's: more digits learned from for the same work
        self.scenes = SceneGenerator(
            "train", size=SIZE, digits=(3, 8), digit_px=(20, 58), max_rotation=15, seed=seed
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, 7, index)))
        return dense_targets(self.scenes.scene(index), rng=rng)


def dense_targets(scene: Scene, *, rng: np.random.Generator) -> dict[str, Tensor]:
    """Augment a scene and describe it patch by patch.

    Args:
        scene: A scene of SIZE pixels.
        rng: Draws the augmentation.

    Returns:
        image (3, SIZE, SIZE) uint8; digit (N,) 0..9 or NO_DIGIT; box (N, 4) distances from the
        patch centre to the left, top, right and bottom side in patches; ink (N, p * p) 0 or 1;
        present (10,) 0 or 1.
    """
    owner: NDArray[np.int16] = np.full((SIZE, SIZE), -1, dtype=np.int16)
    for number, instance in enumerate(scene.instances):
        owner[instance.mask] = number
    image, owner = _warp(scene.image, owner, rng=rng)
    digit = np.full((GRID, GRID), NO_DIGIT, dtype=np.int64)
    box = np.zeros((GRID, GRID, 4), dtype=np.float32)
    most = np.full((GRID, GRID), MIN_INK - 1)
    present = np.zeros(10, dtype=np.float32)
    centre = (np.arange(GRID, dtype=np.float32) + 0.5) * PATCH
    for number, instance in enumerate(scene.instances):
        mask = owner == number
        if mask.sum() < 0.4 * instance.full_area:  # mostly outside the picture
            continue
        present[instance.category] = 1
        pixels = _per_patch(mask).sum(-1)  # (G, G)
        wins = pixels > most
        most[wins] = pixels[wins]
        digit[wins] = instance.category
        x0, y0, x1, y1 = box_of_mask(mask)
        sides = np.broadcast_arrays(
            centre[None] - x0, centre[:, None] - y0, x1 - centre[None], y1 - centre[:, None]
        )
        box[wins] = np.stack(sides, -1)[wins] / PATCH
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "digit": torch.from_numpy(digit.reshape(-1)),
        "box": torch.from_numpy(box.reshape(-1, 4)),
        "ink": torch.from_numpy(_per_patch(owner >= 0).reshape(GRID * GRID, -1)),
        "present": torch.from_numpy(present),
    }


def _per_patch(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Regroup (SIZE, SIZE) into (G, G, p * p)."""
    tiles = mask.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2)
    return tiles.reshape(GRID, GRID, PATCH * PATCH)


def _warp(
    image: NDArray[np.uint8], owner: NDArray[np.int16], *, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Scale, shear, shift and re-colour; no flip, which would turn digits into other signs."""
    scale = np.exp(rng.uniform(-0.25, 0.25)) * np.exp(rng.uniform(-0.12, 0.12, size=2))
    shear = rng.uniform(-0.15, 0.15)
    matrix = np.array([[scale[0], shear, 0], [0, scale[1], 0]], dtype=np.float64)
    middle = np.array([SIZE / 2, SIZE / 2])
    matrix[:, 2] = middle - matrix[:, :2] @ middle + rng.uniform(-16, 16, size=2)
    size = (SIZE, SIZE)
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    owner = cv2.warpAffine(owner, matrix, size, flags=cv2.INTER_NEAREST, borderValue=-1)
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.2:
        image = 255 - image
    gain, offset = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8), owner


def normalise(images: Tensor) -> Tensor:
    """Normalise (B, 3, H, W) grey levels as the detectors do."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() - mean) / std
