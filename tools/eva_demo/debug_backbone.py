"""Pre-train `eva_debug`, the small backbone that ships with the package.

The quick start fine-tunes a detector in minutes, as users do from `eva_psz14to16`; from scratch ten
digits are not learned in that time. This program makes the weights to start from: dense supervised
pre-training on digit scenes of the training side, generated as it goes, with real digits and
photographs only. The model is the plain ViT with global attention and a class token, without
relative positions, as in the paper's pre-training (section 2.2).

Each patch predicts the digit under it (or none), the digit's box and its ink; the class token
predicts which digits the scene holds. Afterwards the backbone is frozen and the digits of held-out
scenes are read out by a linear classifier and by nearest neighbours.

    python tools/train_debug_backbone.py --output output/debug_backbone
    python tools/train_debug_backbone.py --output output/debug_backbone --install

The same command continues an interrupted run. `--install` puts the weights (fp16) and a record of
how they came about into the package.

Letters: B scenes, G patches along a side, N = G * G patches.
"""

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

import eva_backbone
from eva_backbone import VisionTransformer, eva_debug
from eva_data.files import make_folder, write_tensors, write_text, writing
from eva_demo.dense_scenes import GRID, NO_DIGIT, PATCH, SIZE, DenseScenes, normalise
from eva_demo.scenes import SceneGenerator
from eva_demo.splits import SPLITS
from eva_runs.commands import program

logger = logging.getLogger("train_debug_backbone")

_WEIGHTS = Path(eva_backbone.__file__).resolve().parent / "weights"


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

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch from `DenseScenes` and its parts."""
        features = self.backbone(normalise(batch["image"])).float()  # (B, 1 + N, C)
        patches, target = features[:, 1:], batch["digit"]
        found = target != NO_DIGIT  # (B, N)
        per_patch = F.cross_entropy(
            self.digit(patches).flatten(0, 1), target.flatten(), reduction="none"
        ).view_as(target)
        digit = per_patch[found].mean()
        box = F.smooth_l1_loss(F.softplus(self.box(patches[found])), batch["box"][found])
        ink = F.binary_cross_entropy_with_logits(self.ink(patches), batch["ink"].float())
        present = F.binary_cross_entropy_with_logits(self.present(features[:, 0]), batch["present"])
        parts = {"digit": digit, "none": per_patch[~found].mean(), "box": box, "ink": ink}
        parts["present"] = present
        with torch.no_grad():
            guess = self.digit(patches[found])[:, :NO_DIGIT].argmax(-1)
            correct = (guess == target[found]).float().mean()
        return digit + parts["none"] + box + ink + 0.2 * present, parts | {"correct": correct}


def train(args: argparse.Namespace) -> tuple[VisionTransformer, float]:
    """Train or continue; return the averaged backbone and the minutes that it took in all."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    model = DensePretraining(eva_debug(drop_path_rate=0.05))
    average = AveragedModel(model.backbone, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    plain = [p for p in model.parameters() if p.ndim <= 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=args.steps + 1, pct_start=0.05, cycle_momentum=False
    )
    state_file = args.output / "state.pt"
    parts: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    start, minutes = _resume(parts, state_file, args)
    scenes = DenseScenes(args.steps * args.batch, seed=args.seed)
    order = range(start * args.batch, len(scenes))
    loader = DataLoader(
        scenes,
        args.batch,
        sampler=order,
        num_workers=1,
        prefetch_factor=4,
        generator=torch.Generator(),  # not the one that drops paths, which a resume restores
    )
    bf16 = args.precision == "bf16"
    bar = tqdm(loader, initial=start, total=args.steps, unit="step", mininterval=5)
    for step, batch in enumerate(bar, start + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss, metrics = model(batch)
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {step}; lower --lr {args.lr}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model.backbone)
        if step % 50 == 0 or step == args.steps:
            values = {"loss": loss} | metrics
            line = {"step": step} | {k: round(v.item(), 4) for k, v in values.items()}
            with (args.output / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            bar.set_postfix(loss=line["loss"], correct=line["correct"])
        if step % args.save_every == 0 or step == args.steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            state["minutes"] = minutes + (time.monotonic() - began) / 60
            state |= {"step": step, "rng": torch.get_rng_state(), "settings": _settings(args)}
            with writing(state_file) as stream:
                torch.save(state, stream)
    minutes += (time.monotonic() - began) / 60 if start < args.steps else 0
    averaged = average.module
    assert isinstance(averaged, VisionTransformer)
    return averaged, minutes


def _settings(args: argparse.Namespace) -> dict[str, object]:
    return {name: getattr(args, name) for name in ("steps", "batch", "lr", "seed", "precision")}


def _resume(
    parts: Mapping[str, Any], state_file: Path, args: argparse.Namespace
) -> tuple[int, float]:
    if not state_file.exists():
        return 0, 0.0
    state = torch.load(state_file, weights_only=True)
    if state["settings"] != _settings(args):
        raise ValueError(
            f"{state_file} belongs to a run with {state['settings']}, not {_settings(args)}; "
            "choose another --output"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"])
    logger.info("continuing at step %d", state["step"])
    return int(state["step"]), float(state["minutes"])


@torch.no_grad()
def read_out(backbone: VisionTransformer, *, seed: int, train_scenes: int) -> dict[str, float]:
    """Measure frozen features on the digits of the demo data's held-out scenes.

    A digit's feature is the mean of the patches whose centre lies in its box.

    Args:
        backbone: The trained backbone.
        seed: Seed of the scenes, as in the demo data.
        train_scenes: Number of training scenes that the read-outs are fitted on.

    Returns:
        Shares of correct digits under a linear read-out and under 10 nearest neighbours.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = {
        split: _digit_features(backbone, SceneGenerator(split, size=SIZE, seed=seed), count)
        for split, count in zip(SPLITS, (train_scenes, 300), strict=True)
    }
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
    nearest = KNeighborsClassifier(10, metric="cosine", algorithm="brute")
    result = {
        name: round(float(classifier.fit(*data["train"]).score(*data["val"])), 4)
        for name, classifier in (("linear", linear), ("nearest_neighbours", nearest))
    }
    return result | {"held_out_digits": len(data["val"][1])}


def _digit_features(
    backbone: VisionTransformer, scenes: SceneGenerator, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    backbone.eval()
    centre = (torch.arange(GRID) + 0.5) * PATCH
    features, labels = [], []
    for index in tqdm(range(count), desc="features", leave=False):
        scene = scenes.scene(index)
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
        tokens = backbone(normalise(image))[0, 1:].unflatten(0, (GRID, GRID))  # (G, G, C)
        for instance in scene.instances:
            x0, y0, x1, y1 = instance.box
            inside = ((centre > y0) & (centre < y1))[:, None] & ((centre > x0) & (centre < x1))
            features.append(tokens[inside].mean(0))
            labels.append(instance.category)
    return torch.stack(features).numpy(), np.array(labels)


def install(backbone: VisionTransformer, record: Mapping[str, Any]) -> None:
    """Write the fp16 weights and their record into the package, both or none."""
    weights = {name: value.half() for name, value in backbone.state_dict().items()}
    _WEIGHTS.mkdir(exist_ok=True)
    file = _WEIGHTS / "eva_debug.safetensors"
    metadata = {"variant": "eva_debug", "made_by": record["command"]}
    with writing(file.with_suffix(".json")) as stream:
        stream.write(_json(record).encode())
        stream.flush()  # before the weights take the place of the earlier ones
        write_tensors(weights, file, metadata)
    logger.info("wrote %s (%.2f MB)", file.name, file.stat().st_size / 1e6)


def _parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the run")
    add("--steps", type=int, default=7000, help="optimizer steps")
    add("--batch", type=int, default=32, help="scenes per step")
    add("--lr", type=float, default=1.5e-3, help="peak learning rate")
    add("--seed", type=int, default=0, help="seed of weights and scenes")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="autocast")
    add("--save-every", type=int, default=250, help="steps between states")
    add("--read-out-scenes", type=int, default=2000, help="to fit the read-outs")
    add("--install", action="store_true", help="put the result into the package")
    return parser


def _run(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    make_folder(args.output)
    backbone, minutes = train(args)
    result = read_out(backbone, seed=0, train_scenes=args.read_out_scenes)
    logger.info("held-out digits, share correct: %s", result)
    given = {k: v for k, v in _settings(args).items() if v != _parser().get_default(k)}
    options = "".join(f" --{k} {v}" for k, v in given.items())
    record: dict[str, Any] = {
        "command": f"python tools/train_debug_backbone.py --output RUN{options} --install",
        "settings": _settings(args),
        "result": result,
        "training_minutes": round(minutes, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }
    write_text(args.output / "record.json", _json(record))
    if args.install:
        install(backbone, record)
    return 0


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2) + "\n"


main = program(
    lambda arguments: _parser().parse_args(arguments),
    _run,
    refused=1,
    interrupted="the same command continues",
)


if __name__ == "__main__":
    sys.exit(main())
