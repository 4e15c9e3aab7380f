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
    SIZES,
    Pairs,
    build_ours,
    build_peer,
    make_batch,
    parser_of_towers,
    peer_weights,
)
from measuring import Figure, beside, show
from open_clip import ClipLoss
from torch import Tensor, nn

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.step import ContrastiveStep, build_loss, parameter_groups
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.distributed import DTYPES
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.flops import image_input, training_flops
from eva_engine.steps.micro_batches import MicroBatches, forward_and_backward
from eva_runs.data_order import Batch, to_device

SEED, TOLERANCE = 0, 1e-4
OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=5.0)
PUBLISHED = {"A100": 69.9, "H100": 116.9}  # pairs/s of a GPU: NeMo, ViT-g/14
BUILDERS: dict[str, Callable[..., Any]] = {"ours": build_ours, "open_clip": build_peer}
CASES: dict[str, tuple[dict[str, Any], int]] = {  # arguments of the models, micro-batches
    "plain": ({}, 1),
    "checkpoints": ({"checkpoints": True}, 1),
    "patch dropout 0.5": ({"patch_dropout": 0.5}, 1),
    "2 micro-batches": ({}, 2),
    "4 micro-batches": ({}, 4),
    "8 micro-batches": ({}, 8),
}

Step = Callable[[Pairs], None]


def micro_batches(batch: Pairs, count: int) -> list[Pairs]:
    """Divide a batch."""
    images, tokens = batch
    return list(zip(images.chunk(count), tokens.chunk(count), strict=True))


def our_step(model: EvaClip, count: int, args: argparse.Namespace, device: torch.device) -> Step:
    """The step of `eva_engine.loop` with that of contrastive training, through DeepSpeed."""
    run = RunConfig(
        output=Path("unused"),
        batch_size=args.batch // count,
        accumulate=count,
        precision=args.precision,
        zero_stage=0 if args.precision == "fp32" else 1,
    )
    tower = TowerConfig(lr=OPTIMIZER.lr)
    config = ContrastiveConfig(
        model=_model_config(args), data=DataConfig(train="unused"),
        vision=tower, text=tower, optimizer=OPTIMIZER, run=run,
    )  # fmt: skip
    groups = parameter_groups(config, model)
    engine = TrainingEngine(model, groups=groups, optimizer=OPTIMIZER, run=run)
    engine.engine.train()
    step_fn = ContrastiveStep(build_loss(config.loss))

    def step(batch: Pairs) -> None:
        engine.set_learning_rate(OPTIMIZER.lr)
        forward_and_backward(engine, step_fn, as_loaded(micro_batches(batch, count), device))
        if not engine.gradients_are_finite():
            raise FloatingPointError("a gradient is not finite")
        engine.step()

    return step


def as_loaded(parts: Sequence[Pairs], device: torch.device) -> MicroBatches:
    """Micro-batches as the loop has them from the loader."""
    loaded = iter([Batch(data=part, items=[], unreadable={}) for part in parts])
    return MicroBatches(loaded, count=len(parts), device=device, seeds=(SEED, 0))


def _model_config(args: argparse.Namespace) -> ModelConfig:
    return ModelConfig(variant="eva_g_patch14", image_size=SIZES[args.size]["image_size"])


def peer_step(model: Any, count: int, args: argparse.Namespace, device: torch.device) -> Step:
    """Forward, backward, clip, AdamW, clamp."""
    matrices, vectors = (
        [p for name, p in model.named_parameters() if _is_matrix(name, p) == kind]
        for kind in (True, False)
    )
    groups = [{"params": matrices, "weight_decay": OPTIMIZER.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER.lr, betas=OPTIMIZER.betas, eps=OPTIMIZER.eps)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    model.train()

    def step(batch: Pairs) -> None:
        parts = [to_device(part, device) for part in micro_batches(batch, count)]
        peer_gradients(model, parts, dtype=DTYPES[args.precision], scale=scaler.scale)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        optimizer.zero_grad()

    return step


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and "bias" not in name


def peer_gradients(
    model: nn.Module,
    parts: Sequence[Pairs],
    *,
    dtype: torch.dtype,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
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
    wanted_loss, wanted = _gradients(ours, partial(_our_gradients, ours, [batch]))
    scale = wanted.pop("logit_scale")
    for title, model, run in (
        ("ours in 2 micro-batches", ours, partial(_our_gradients, ours, micro_batches(batch, 2))),
        ("open_clip", peer, partial(of_peer, [batch])),
        ("open_clip in 2", peer, partial(of_peer, micro_batches(batch, 2))),
    ):
        loss, gradients = _gradients(model, run)
        yield (
            f"{title}: gradient of the logit scale in ours",
            (gradients.pop("logit_scale") / scale).item(),
        )
        apart = sum((gradients[name] - wanted[name]).square().sum().item() for name in gradients)
        total = sum(gradient.square().sum().item() for gradient in wanted.values())
        differences = {"loss": abs(loss - wanted_loss), "gradients": (apart / total) ** 0.5}
        for name, value in differences.items():
            yield f"{title}: difference of the {name} from our plain step", value
            if not value < TOLERANCE:
                raise ValueError(f"{title}, {name}: {value:.3g}: the steps do not do the same")


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


def _gradients(model: nn.Module, run: Callable[[], float]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients, under open_clip's names."""
    model.zero_grad(set_to_none=True)
    loss = run()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss, peer_weights(found) if "text.logit_scale" in found else found


def flops_of(who: str, args: argparse.Namespace, **options: Any) -> float:
    """Model FLOPs of a pair in training."""
    side = SIZES[args.size]["image_size"]
    inputs = [image_input(side), torch.zeros(1, LENGTH, dtype=torch.int64)]
    build = partial(BUILDERS[who], args.size, **options)
    return training_flops(lambda _: build(), _model_config(args), inputs=inputs)


def figures(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """Yield all figures."""
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
            calls[who] = partial(make(model, count, args, device), batch)
        yield from beside(title, calls, rounds=args.rounds, device=device, items=args.batch)
        del calls, model
    if device.type == "cuda":
        for name, rate in PUBLISHED.items():
            yield f"published pairs/s of one {name} (NeMo, ViT-g/14)", rate


def main() -> None:
    """Print all figures."""
    args = parser_of_towers(__doc__, batch=8).parse_args()
    device = distributed.start("auto")
    show(figures(args, device), rounds=args.rounds)
    distributed.stop()


if __name__ == "__main__":
    main()
