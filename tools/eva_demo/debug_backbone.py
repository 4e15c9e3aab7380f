"""Pre-train `eva_debug`, the small backbone that ships with the package.

    python tools/train_debug_backbone.py --output output/debug_backbone

The quick start fine-tunes a detector in minutes, as users do from `eva_psz14to16`; from scratch ten
digits are not learned in that time. This program makes the weights to start from: dense supervised
pre-training on scenes of the training side, generated as it goes. Each patch predicts the digit
under it (or none), the digit's box and its ink; the class token predicts which digits there are.
The weights in `eva_backbone/weights` are a copy of what it writes (fp16).

Shapes: B scenes, N patches, C channels, H and W sides of a scene in px.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from eva_backbone import VisionTransformer, eva_debug
from eva_data.progress import ProgressBar
from eva_data.saving import make_folder, write_tensors
from eva_demo.dense_scenes import NO_DIGIT, PATCH, SEED, DenseScenes
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser

MEAN = (123.675, 116.28, 103.53)  # the detectors' normalisation, in grey levels
STD = (58.395, 57.12, 57.375)
BATCH, LR = 32, 1.5e-3  # the highest learning rate


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
