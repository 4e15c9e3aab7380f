"""A step of contrastive training beside open_clip's `EVA01-g-14`, same weights, batch and process.

The peer is open_clip's model through timm, with a loop as open_clip's own has it: automatic mixed
precision, torch's AdamW, and with micro-batches all features first, then each micro-batch again.
Ours is the step of `eva_contrastive` through DeepSpeed's engine. First the program makes sure that
both have the same loss and gradients, plain and in micro-batches; then it times both in turn, with
the copy of the batch and the optimizer.

Yields `(name, value)` for the plain step, for checkpoints of activations, for half of the patches
left out, and for the same batch in 2, 4 and 8 micro-batches with cached features. Peaks are those
of a step beside weights and optimizer. The default sizes are the first blocks of both towers, for a
CPU; our last block computes for the class token alone, which saves much of a tower of two blocks
and 2 % of EVA-CLIP-g, hence the FLOPs.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/clip_step.py
    python benchmarks/clip_step.py --size complete --batch 64 --precision bf16  # on a GPU

Letters: B pairs, k micro-batches.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from clip_models import (
    LENGTH,
    Pairs,
    build_ours,
    build_peer,
    image_size,
    make_batch,
    parser_of_towers,
    peer_weights,
)
from measuring import Figure, beside, show
from open_clip import ClipLoss
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from training_steps import (
    SEED,
    Gradients,
    Step,
    as_loaded,
    engine_step,
    gradients_of,
    plain_step,
    require_equal,
)

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.step import ContrastiveStep, build_loss, parameter_groups
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.flops import image_input, training_flops
from eva_runs.data_order import to_device
from eva_runs.precision import DTYPES

OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=5.0)
BUILDERS: dict[str, Callable[..., Any]] = {"ours": build_ours, "open_clip": build_peer}
CASES: dict[str, tuple[dict[str, Any], int]] = {  # arguments of the models, micro-batches
    "plain": ({}, 1),
    "checkpoints": ({"checkpoints": True}, 1),
    "patch dropout 0.5": ({"patch_dropout": 0.5}, 1),
    "2 micro-batches": ({}, 2),
    "4 micro-batches": ({}, 4),
    "8 micro-batches": ({}, 8),
}


def micro_batches(batch: Pairs, count: int) -> list[Pairs]:
    """Divide a batch."""
    images, tokens = batch
    return list(zip(images.chunk(count), tokens.chunk(count), strict=True))


def our_step(model: EvaClip, count: int, args: argparse.Namespace, device: torch.device) -> Step:
    tower = TowerConfig(lr=OPTIMIZER.lr)
    config = ContrastiveConfig(
        model=_model_config(args), data=DataConfig(train="unused"),
        vision=tower, text=tower, optimizer=OPTIMIZER, run=RunConfig(output=Path("unused")),
    )  # fmt: skip
    groups, step_fn = parameter_groups(config, model), ContrastiveStep(build_loss(config.loss))
    return engine_step(model, groups, step_fn, OPTIMIZER, args, device=device, count=count)


def _model_config(args: argparse.Namespace) -> ModelConfig:
    return ModelConfig(variant="eva_g_patch14", image_size=image_size(args.size))


def peer_step(model: Any, count: int, args: argparse.Namespace, device: torch.device) -> Step:
    """That of open_clip's program, which clamps the factor of the logits."""
    del count
    groups = param_groups_weight_decay(model, OPTIMIZER.weight_decay)
    backward = partial(peer_gradients, model, dtype=DTYPES[args.precision])
    advance = plain_step(model, groups, backward, OPTIMIZER, args, device=device)

    def step(parts: Sequence[Pairs]) -> None:
        advance(parts)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    return step


def peer_gradients(
    model: nn.Module,
    parts: Sequence[Pairs],
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    *,
    dtype: torch.dtype,
) -> float:
    """Add up the peer's gradients; with several parts as its `--accum-freq` does.

    Then the loss of the batch is computed for each part, whose features are computed again. The
    gradient of the logit scale is that of the batch for every part, k times too much.
    """
    loss_of = ClipLoss()
    device = parts[0][0].device.type
    autocast = partial(torch.autocast, device, dtype, enabled=dtype != torch.float32)
    names = ("image_features", "text_features")
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    for images, tokens in parts if len(parts) > 1 else ():
        with torch.no_grad(), autocast():
            found = model(images, tokens)
        for name in names:
            kept[name].append(found[name])
    for place, (images, tokens) in enumerate(parts):
        with autocast():
            found = model(images, tokens)
            features = {
                name: torch.cat([*kept[name][:place], found[name], *kept[name][place + 1 :]])
                for name in names
            }
            loss = loss_of(**features, logit_scale=found["logit_scale"])
        scale(loss).backward()
    return float(loss.item())


def check(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """Compare losses and gradients in float32, of the complete batch and of two micro-batches."""
    distributed.seed_all(SEED)
    ours, peer = (build(args.size).to(device) for build in BUILDERS.values())
    peer.load_state_dict(peer_weights(ours.state_dict()))
    batch = to_device(make_batch(args.size, min(args.batch, 8)), device)
    of_peer = partial(peer_gradients, peer, dtype=torch.float32)
    wanted = _gradients(ours, partial(_our_gradients, ours, [batch]))
    scale = wanted[1].pop("logit_scale")
    for title, model, run in (
        ("ours in 2 micro-batches", ours, partial(_our_gradients, ours, micro_batches(batch, 2))),
        ("open_clip", peer, partial(of_peer, [batch])),
        ("open_clip in 2", peer, partial(of_peer, micro_batches(batch, 2))),
    ):
        found = _gradients(model, run)
        share = found[1].pop("logit_scale") / scale
        yield f"{title}: gradient of the logit scale in ours", share.item()
        yield from require_equal(title, found, wanted)


def _our_gradients(model: EvaClip, parts: Sequence[Pairs]) -> float:
    step_fn = ContrastiveStep(build_loss("contrastive"))
    data = as_loaded(parts, parts[0][0].device)
    step_fn.begin(model, data)
    total = 0.0
    for part in data:
        loss, _ = step_fn(model, part)
        (loss / len(parts)).backward()
        total += loss.item() / len(parts)
    return total


def _gradients(model: nn.Module, run: Callable[[], float]) -> Gradients:
    """Loss and gradients, under open_clip's names."""
    loss, found = gradients_of(model, run)
    return loss, peer_weights(found) if "text.logit_scale" in found else found


def flops_of(who: str, args: argparse.Namespace, **options: Any) -> float:
    """Model FLOPs of a pair in training."""
    inputs = [image_input(image_size(args.size)), torch.zeros(1, LENGTH).long()]
    build = partial(BUILDERS[who], args.size, **options)
    return training_flops(lambda _: build(), _model_config(args), inputs=inputs)


def figures(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    yield from check(args, device)
    batch = make_batch(args.size, args.batch)
    for title, (options, count) in CASES.items():
        if args.batch % count:
            continue
        calls = {}
        for who, make in (("ours", our_step), ("open_clip", peer_step)):
            yield f"{title}: {who}, GFLOP a pair", flops_of(who, args, **options) / 1e9
            distributed.seed_all(SEED)
            model = BUILDERS[who](args.size, **options).to(device)
            step = make(model, count, args, device)
            calls[who] = partial(step, micro_batches(batch, count))
        yield from beside(title, calls, rounds=args.rounds, device=device, items=args.batch)
        del calls, model, step


def main() -> None:
    args = parser_of_towers(__doc__, batch=8).parse_args()
    device = distributed.start("auto")
    show(figures(args, device), rounds=args.rounds)
    distributed.stop()


if __name__ == "__main__":
    main()
