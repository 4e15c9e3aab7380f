"""Scenes of digits with a target for every patch, which the debug backbone is pre-trained on.

Letters: G patches along a side, N = G * G patches, p patch size.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eva_backbone import VARIANTS
from eva_demo.scenes import SceneGenerator
from eva_demo.sources import box_of_mask

SIZE, PATCH = VARIANTS["eva_debug"].img_size, VARIANTS["eva_debug"].patch_size
GRID = SIZE // PATCH
NO_DIGIT, SEED = 10, 0
MIN_INK = 6  # pixels of a digit in a patch that make it the patch's digit


class DenseScenes(Dataset[dict[str, Any]]):
    """Augmented training scenes with a target for every patch; item i depends on i alone.

    image (3, SIZE, SIZE) uint8; digit (N,) 0..9 or NO_DIGIT; box (N, 4) distances from the patch
    centre to the left, top, right and bottom side in patches; ink (N, p * p) 0 or 1; present (10,)
    0 or 1.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        # fuller scenes than the demo data's: more digits learned from for the same work
        self.scenes = SceneGenerator(
            "train", size=SIZE, digits=(3, 8), digit_px=(20, 58), max_rotation=15, seed=SEED
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self.scenes.make(index)
        owner: NDArray[np.int16] = np.full((SIZE, SIZE), -1, dtype=np.int16)
        for number, instance in enumerate(scene.instances):
            owner[instance.mask] = number
        image, owner = _warp(scene.image, owner, rng=np.random.default_rng((SEED, 7, index)))
        digit = np.full((GRID, GRID), NO_DIGIT, dtype=np.int64)
        box = np.zeros((GRID, GRID, 4), dtype=np.float32)
        most_pixels = np.full((GRID, GRID), MIN_INK - 1)
        present = np.zeros(10, dtype=np.float32)
        x = (np.arange(GRID, dtype=np.float32)[None] + 0.5) * PATCH  # of the patches' centres
        for number, instance in enumerate(scene.instances):
            mask = owner == number
            if mask.sum() < 0.4 * instance.full_area:  # mostly outside the image
                continue
            present[instance.category] = 1
            pixels = _per_patch(mask).sum(-1)  # (G, G)
            wins = pixels > most_pixels
            most_pixels[wins] = pixels[wins]
            digit[wins] = instance.category
            x0, y0, x1, y1 = box_of_mask(mask)
            sides = np.broadcast_arrays(x - x0, x.T - y0, x1 - x, y1 - x.T)
            box[wins] = np.stack(sides, -1)[wins] / PATCH
        return {
            "image": image.transpose(2, 0, 1).copy(),
            "digit": digit.reshape(-1),
            "box": box.reshape(-1, 4),
            "ink": _per_patch(owner >= 0).reshape(GRID * GRID, -1),
            "present": present,
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
    matrix = np.array([[scale[0], rng.uniform(-0.15, 0.15), 0], [0, scale[1], 0]])
    middle = np.array([SIZE / 2, SIZE / 2])
    matrix[:, 2] = middle - matrix[:, :2] @ middle + rng.uniform(-16, 16, size=2)
    image = cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT_101)
    owner = cv2.warpAffine(owner, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST, borderValue=-1)
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.2:
        image = 255 - image
    gain, offset = rng.uniform(0.7, 1.2), rng.uniform(-20, 20)
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8), owner
