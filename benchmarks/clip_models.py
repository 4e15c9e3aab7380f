"""Our CLIP and open_clip's `EVA01-g-14` with the same sizes and weights, for other programs here.

The peer is open_clip's model through timm, and its training step follows open_clip's own: automatic
mixed precision, torch's AdamW, and with micro-batches all features first, then each micro-batch
again.

Letters: B pairs, k micro-batches.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from measuring import parser_of_sizes
from timm.models import eva as timm_eva
from torch import Tensor, nn

from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower
from eva_engine.config import OptimizerConfig
from eva_engine.distributed import DTYPES
from eva_runs.data_order import to_device

STOCK, PATCH, LENGTH = "EVA01-g-14", 14, 77
SLICE_SIZES: dict[str, Any] = {}  # of the peer, where it is not the stock model
OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=5.0)
COMPLETE = {"width": 1408, "depth": 40, "heads": 16, "mlp": 6144, "image_size": 224,
            "embed_dim": 1024, "text_width": 768, "text_depth": 12, "text_heads": 12,
            "words": 49408}  # fmt: skip

Pairs = tuple[Tensor, Tensor]


class Case(NamedTuple):
    """What a row of the table is about."""

    title: str
    checkpoints: bool = False
    patch_dropout: float = 0.0
    micro_batches: int = 1


PLAIN = Case("plain")


class Step(NamedTuple):
    """A training step in two halves: all passes of a batch, with its loss, and the optimizer."""

    passes: Callable[[Pairs], float]
    update: Callable[[], object]

    def __call__(self, batch: Pairs) -> None:
        """Carry out both."""
        self.passes(batch)
        self.update()


def parser_of_towers(description: str | None, *, batch: int) -> argparse.ArgumentParser:
    """Make a command line with the sizes of both towers; `sized` completes what it parses."""
    parser = parser_of_sizes(description, batch=batch)
    parser.set_defaults(depth=2)
    add = parser.add_argument
    add("--complete", action="store_true", help="the sizes of EVA-CLIP-g, instead of those below")
    add("--mlp", type=int, default=6144, help="hidden width of the MLP")
    add("--image-size", type=int, default=224, help="side in pixels")
    add("--embed-dim", type=int, default=1024, help="values of a feature")
    add("--text-width", type=int, default=768)
    add("--text-depth", type=int, default=1)
    add("--text-heads", type=int, default=12)
    add("--words", type=int, default=4096, help="size of the vocabulary")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=DTYPES, help="default: fp16 on a GPU, fp32 on a CPU")
    return parser


def sized(args: argparse.Namespace, device: torch.device) -> argparse.Namespace:
    """Fill in what follows from other arguments and the device."""
    if args.complete:
        vars(args).update(COMPLETE)
    args.precision = args.precision or ("fp16" if device.type == "cuda" else "fp32")
    return args


def build_ours(args: argparse.Namespace, case: Case = PLAIN) -> EvaClip:
    """The toolkit's model."""
    visual = VisionTower(
        output_dim=args.embed_dim, patch_dropout=case.patch_dropout, img_size=args.image_size,
        patch_size=PATCH, embed_dim=args.width, depth=args.depth, num_heads=args.heads,
        mlp_dim=args.mlp, activation_checkpointing=case.checkpoints,
    )  # fmt: skip
    text = TextTower(
        output_dim=args.embed_dim, context_length=LENGTH, vocab_size=args.words,
        width=args.text_width, depth=args.text_depth, num_heads=args.text_heads,
    )  # fmt: skip
    text.set_grad_checkpointing(case.checkpoints)
    return EvaClip(visual, text)


@timm.models.register_model
def eva_slice(**options: Any) -> nn.Module:
    """Timm's stock entry with the sizes of the command line; a name for open_clip's config."""
    model: nn.Module = timm_eva.eva_giant_patch14_224(**SLICE_SIZES | options)
    return model


def build_peer(args: argparse.Namespace, case: Case = PLAIN) -> nn.Module:
    """open_clip's stock model, or one like it with other sizes."""
    import open_clip

    name = STOCK
    if not args.complete:
        name = add_slice(open_clip.get_model_config(STOCK), args)
    rate = case.patch_dropout or None
    options = {"force_patch_dropout": rate, "device": torch.get_default_device()}
    model: Any = open_clip.create_model(name, output_dict=True, **options)
    model.set_grad_checkpointing(case.checkpoints)
    return model


def add_slice(config: dict[str, Any], args: argparse.Namespace) -> str:
    """Add a model of other sizes to those that open_clip knows; gives its name."""
    import open_clip

    SLICE_SIZES.update(
        img_size=args.image_size, embed_dim=args.width, depth=args.depth, num_heads=args.heads,
        mlp_ratio=(args.mlp + 0.5) / args.width,  # timm rounds the product down
    )  # fmt: skip
    config["embed_dim"] = args.embed_dim
    config["vision_cfg"] |= {"timm_model_name": "eva_slice", "image_size": args.image_size}
    config["text_cfg"] |= {
        "vocab_size": args.words, "width": args.text_width, "heads": args.text_heads,
        "layers": args.text_depth,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "EVA01-g-14-slice.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(file)
    return file.stem


def peer_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our model's weights under open_clip's names."""
    found = {
        name.replace("visual.", "visual.trunk.", name.startswith("visual.")): value
        for name, value in weights.items()
    }
    found["logit_scale"] = found.pop("text.logit_scale").reshape(())
    return found


def make_batch(args: argparse.Namespace, pairs: int) -> Pairs:
    """Noise, and texts of 8 to 60 random words."""
    images = torch.randn(pairs, 3, args.image_size, args.image_size)
    tokens = torch.randint(1, args.words - 1, (pairs, LENGTH))
    ends = torch.randint(8, 60, (pairs, 1))
    place = torch.arange(LENGTH)
    tokens = torch.where(place == ends, args.words - 1, tokens)  # its largest number ends a text
    return images, torch.where(place > ends, 0, tokens)


def micro_batches(batch: Pairs, count: int) -> list[Pairs]:
    """Divide a batch."""
    images, tokens = batch
    return list(zip(images.chunk(count), tokens.chunk(count), strict=True))


def peer_step(model: nn.Module, case: Case, args: argparse.Namespace, device: torch.device) -> Step:
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

    def passes(batch: Pairs) -> float:
        parts = [to_device(part, device) for part in micro_batches(batch, case.micro_batches)]
        return peer_gradients(model, parts, dtype=DTYPES[args.precision], scale=scaler.scale)

    def update() -> None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        optimizer.zero_grad()  # here, as DeepSpeed does, so that peaks of passes count gradients

    return Step(passes, update)


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
    from open_clip import ClipLoss

    loss_of = ClipLoss()
    autocast = partial(
        torch.autocast, parts[0][0].device.type, dtype, enabled=dtype != torch.float32
    )
    names = ("image_features", "text_features")
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    if len(parts) > 1:
        for images, tokens in parts:
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
