"""Pre-train `eva_debug`, the small backbone that ships with the package.

    python tools/train_debug_backbone.py --output output/debug_backbone

The quick start fine-tunes a detector in minutes, as users do from `eva_psz14to16`; from scratch ten
digits are not learned in that time. This program makes the weights to start from: dense supervised
pre-training on scenes of the training side, generated as it goes. Each patch predicts the digit
under it (or none), the digit's box and its ink; the class token predicts which digits there are.
The weights in `eva_backbone/weights` are a copy of what it writes (fp16).

Letters: B scenes, G patches along a side, N = G * G patches, p patch size.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from eva_backbone import VARIANTS, VisionTransformer, eva_debug
from eva_data.progress import ProgressBar
from eva_data.saving import make_folder, write_tensors
from eva_demo.scenes import SceneGenerator
from eva_demo.sources import box_of_mask
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser

SIZE, PATCH = VARIANTS["eva_debug"].img_size, VARIANTS["eva_debug"].patch_size
GRID = SIZE // PATCH
MEAN = (123.675, 116.28, 103.53)  # the detectors' normalisation, in grey levels
STD = (58.395, 57.12, 57.375)
NO_DIGIT = 10
MIN_INK = 6  # pixels of a digit in a patch that make it the patch's digit
BATCH, SEED, LR = 32, 0, 1.5e-3  # the highest learning rate


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


class DensePretraining(nn.Module):
    """The backbone with one linear prediction for every patch and one for the scene."""

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone
        dim = backbone.embed_dim
        self.digit = nn.Linear(dim, NO_DIGIT + 1)
        self.box = nn.Linear(dim, 4)
        self.ink = nn.Linear(dim, PATCH * PATCH)
        self.present = nn.Linear(dim, 10)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a batch from `DenseScenes`."""
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        images = (batch["image"].float() - mean) / std  # (B, 3, H, W)
        features = self.backbone(images).float()  # (B, 1 + N, C)
        patches, target = features[:, 1:], batch["digit"]
        has_digit = target != NO_DIGIT  # (B, N)
        digits = F.cross_entropy(self.digit(patches).mT, target, reduction="none")  # (B, N)
        box = F.smooth_l1_loss(F.softplus(self.box(patches[has_digit])), batch["box"][has_digit])
        ink = F.binary_cross_entropy_with_logits(self.ink(patches), batch["ink"].float())
        present = F.binary_cross_entropy_with_logits(self.present(features[:, 0]), batch["present"])
        return digits[has_digit].mean() + digits[~has_digit].mean() + box + ink + 0.2 * present


def train(steps: int) -> nn.Module:
    """Train; return the averaged backbone."""
    torch.manual_seed(SEED)
    model = DensePretraining(eva_debug(drop_path_rate=0.05))
    average = AveragedModel(model.backbone, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, LR, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=steps + 1, pct_start=0.05, cycle_momentum=False
    )
    # a generator of its own, not the one that drops paths
    scenes, order = DenseScenes(steps * BATCH), torch.Generator()
    loader = DataLoader(scenes, BATCH, num_workers=1, prefetch_factor=4, generator=order)
    with ProgressBar(steps, title="train", unit="step") as bar:
        for batch in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 3.0, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
            average.update_parameters(model.backbone)
            bar.update(loss=f"{loss.item():.3g}")
    return average.module


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--steps", type=int, default=7000, help="optimizer steps")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> None:
    make_folder(args.output)
    weights = {name: value.half() for name, value in train(args.steps).state_dict().items()}
    command = f"python tools/train_debug_backbone.py --output RUN --steps {args.steps}"
    file = args.output / "eva_debug.safetensors"
    write_tensors(weights, file, {"variant": "eva_debug", "made_by": command})
    echo(f"wrote {file}")


main = Command("error", _parse, _run)
