"""Pre-train `eva_debug`, the small backbone that ships with the package.

    python tools/train_debug_backbone.py --output output/debug_backbone

The quick start fine-tunes a detector in minutes, as users do from `eva_psz14to16`; from scratch ten
digits are not learned in that time. This program makes the weights to start from: dense supervised
pre-training on scenes of the training side, generated as it goes. Each patch predicts the digit
under it (or none), the digit's box and its ink; the class token predicts which digits there are.
The weights (fp16) and a record of how they came about are written to the folder; those of the
package are a copy of them (`eva_backbone/weights`).

Letters: B scenes, G patches along a side, N = G * G patches, p patch size.
"""

import argparse
import json
import platform
import time
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
from tqdm import tqdm

from eva_backbone import VARIANTS, VisionTransformer, eva_debug
from eva_data.saving import make_folder, write_tensors, write_text
from eva_demo.scenes import SceneGenerator
from eva_demo.sources import box_of_mask
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser

SIZE = VARIANTS["eva_debug"].img_size
PATCH = VARIANTS["eva_debug"].patch_size
GRID = SIZE // PATCH
MEAN = (123.675, 116.28, 103.53)  # the detectors' normalisation, in grey levels
STD = (58.395, 57.12, 57.375)
NO_DIGIT = 10
MIN_INK = 6  # pixels of a digit in a patch that make it the patch's digit
LR = 1.5e-3  # the highest


class DenseScenes(Dataset[dict[str, Tensor]]):
    """Augmented training scenes with a target for every patch; item i depends on (seed, i).

    image (3, SIZE, SIZE) uint8; digit (N,) 0..9 or NO_DIGIT; box (N, 4) distances from the patch
    centre to the left, top, right and bottom side in patches; ink (N, p * p) 0 or 1; present (10,)
    0 or 1.
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
        scene = self.scenes.make(index)
        owner: NDArray[np.int16] = np.full((SIZE, SIZE), -1, dtype=np.int16)
        for number, instance in enumerate(scene.instances):
            owner[instance.mask] = number
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, 7, index)))
        image, owner = _warp(scene.image, owner, rng=rng)
        digit = np.full((GRID, GRID), NO_DIGIT, dtype=np.int64)
        box = np.zeros((GRID, GRID, 4), dtype=np.float32)
        most_pixels = np.full((GRID, GRID), MIN_INK - 1)
        present = np.zeros(10, dtype=np.float32)
        centre = (np.arange(GRID, dtype=np.float32) + 0.5) * PATCH
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
        per_patch = F.cross_entropy(
            self.digit(patches).flatten(0, 1), target.flatten(), reduction="none"
        ).view_as(target)
        box = F.smooth_l1_loss(F.softplus(self.box(patches[has_digit])), batch["box"][has_digit])
        ink = F.binary_cross_entropy_with_logits(self.ink(patches), batch["ink"].float())
        present = F.binary_cross_entropy_with_logits(self.present(features[:, 0]), batch["present"])
        return (
            per_patch[has_digit].mean() + per_patch[~has_digit].mean() + box + ink + 0.2 * present
        )


def train(args: argparse.Namespace) -> VisionTransformer:
    """Train; return the averaged backbone."""
    torch.manual_seed(args.seed)
    model = DensePretraining(eva_debug(drop_path_rate=0.05))
    average = AveragedModel(model.backbone, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    plain = [p for p in model.parameters() if p.ndim <= 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=args.steps + 1, pct_start=0.05, cycle_momentum=False
    )
    scenes = DenseScenes(args.steps * args.batch, seed=args.seed)
    # a generator of its own, not the one that drops paths
    loader = DataLoader(
        scenes, args.batch, num_workers=1, prefetch_factor=4, generator=torch.Generator()
    )
    bar = tqdm(loader, unit="step", mininterval=5)
    for batch in bar:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0, error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
        average.update_parameters(model.backbone)
        bar.set_postfix(loss=loss.item(), refresh=False)
    averaged = average.module
    assert isinstance(averaged, VisionTransformer)
    return averaged


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of weights and record")
    add("--steps", type=int, default=7000, help="optimizer steps")
    add("--batch", type=int, default=32, help="scenes per step")
    add("--seed", type=int, default=0, help="seed of weights and scenes")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> None:
    make_folder(args.output)
    began = time.monotonic()
    weights = {name: value.half() for name, value in train(args).state_dict().items()}
    settings = {name: getattr(args, name) for name in ("steps", "batch", "seed")}
    options = " ".join(f"--{name} {value}" for name, value in settings.items())
    command = f"python tools/train_debug_backbone.py --output RUN {options}"
    record = {
        "command": command,
        "settings": settings,
        "training_minutes": round((time.monotonic() - began) / 60, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }
    file = args.output / "eva_debug.safetensors"
    write_tensors(weights, file, {"variant": "eva_debug", "made_by": command})
    write_text(file.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    echo(f"wrote {file}")


main = Command("error", _parse, _run)
