"""One step of pre-training beside a plain one, same weights, sizes and teacher, in one process.

The plain step is what one would write with timm's EVA: a mask token, all blocks for all tokens, a
head on all patches of which the masked ones are taken, drop path for each sample, torch's AdamW and
a plain loop. Both begin with the teacher's forward pass and end with the optimizer. First the
program makes sure that both have the same loss and gradients; then it times them in turn.

Yields `(name, value)`: the difference of loss and gradients, then for each drop path rate the
seconds, samples per second and peak memory of both, and the ratio. The paper's 24.6 images/s on an
A100 (3150 on 128) compare with `--depth 40 --batch 32`.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/pretrain_step.py --drop-path 0.1 0.4

Letters: B images, N patches of an image, K masked patches of the batch, C channels.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from measuring import EVA_MLP, EVA_WIDTH, Figure, add_precision, beside, parser_of_sizes, show
from timm.models.eva import Eva
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from training_steps import SEED, Step, engine_step, gradients_of, plain_step, require_equal

from eva_engine import distributed
from eva_engine.config import OptimizerConfig
from eva_engine.steps.flops import forward_flops, image_input
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.masked_image_modeling import (
    BlockMasking,
    MaskedFeatures,
    MaskedImageModeling,
    PretrainStep,
    collate,
)
from eva_pretrain.teachers import ClipTeacher
from eva_runs.data_order import to_device
from eva_runs.precision import DTYPES

SIDE, PATCH, EVA_DEPTH, MASKED = 224, 14, 40, 105
TEACHER = "ViT-L-14"
OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05, clip_grad=3.0)

Batch = dict[str, Any]


class PlainModel(Eva):
    """timm's EVA with a mask token and a head of `target_dim` outputs."""

    def __init__(self, *, target_dim: int, **sizes: Any) -> None:
        norm = partial(nn.LayerNorm, eps=1e-6)
        super().__init__(num_classes=0, global_pool="", norm_layer=norm, **sizes)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.lm_head = nn.Linear(self.embed_dim, target_dim)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Predict the features of masked patches, (K, D) from (B, 3, H, W) and (B, N)."""
        x = self.patch_embed(images)  # (B, N, C)
        x = torch.where(mask[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.norm(x)[:, 1:])[mask]


def build(name: str, args: argparse.Namespace, rate: float, *, target_dim: int) -> nn.Module:
    """The toolkit's model ("ours") or its peer; their parameters have the same names."""
    sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": args.width,
             "depth": args.depth, "num_heads": args.heads, "drop_path_rate": rate}  # fmt: skip
    mlp_dim = EVA_MLP * args.width // EVA_WIDTH
    if name == "ours":
        return MaskedImageModeling(target_dim=target_dim, mlp_dim=mlp_dim, **sizes)
    ratio = (mlp_dim + 0.5) / args.width  # timm rounds the product of width and ratio down
    return PlainModel(target_dim=target_dim, mlp_ratio=ratio, **sizes)


def build_teacher(args: argparse.Namespace, device: torch.device) -> ClipTeacher:
    """open_clip's vision tower with random weights, whose patches are as many as the student's."""
    config = open_clip.get_model_config(TEACHER)
    vision = config["vision_cfg"]
    # EVA-g's teacher has to do a tenth of the work of EVA-g; it keeps that share
    layers = max(1, round(vision["layers"] * args.depth / EVA_DEPTH))
    vision |= {"layers": layers, "image_size": SIDE // PATCH * vision["patch_size"]}
    text = {"context_length": 1, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
    clip = open_clip.CLIP(config["embed_dim"], vision_cfg=vision, text_cfg=text)
    return ClipTeacher(clip.visual).to(device, DTYPES[args.precision])


def make_batch(args: argparse.Namespace, teacher: ClipTeacher) -> Batch:
    """Noise for student and teacher, and masks of two fifths of the patches, as a run has them."""
    side = SIDE // PATCH
    masking = BlockMasking(grid=(side, side), num_masked=MASKED, min_block=16)
    images = torch.randn(args.batch, 3, SIDE, SIDE)
    teacher_images = torch.randn(args.batch, 3, *teacher.image_size)
    pairs = zip(images, teacher_images, strict=True)
    return collate([{"images": image, "teacher_images": other, "mask": torch.from_numpy(masking())}
                    for image, other in pairs])  # fmt: skip


def plain_passes(
    model: nn.Module,
    teacher: ClipTeacher,
    parts: Sequence[Batch],
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    *,
    dtype: torch.dtype = torch.float32,
) -> float:
    """The passes of the plain step for one batch; its loss."""
    (batch,) = parts
    mask = batch["mask"].flatten(1)
    features = teacher(batch["teacher_images"])
    half = dtype != torch.float32
    with torch.autocast(batch["images"].device.type, dtype if half else None, enabled=half):
        predictions = model(batch["images"], mask)
    loss = -F.cosine_similarity(predictions.float(), features[mask].float(), dim=-1).mean()
    scale(loss).backward()
    return float(loss.item())


def our_passes(model: nn.Module, teacher: ClipTeacher, parts: Sequence[Batch]) -> float:
    """Ours for one batch; its loss."""
    loss, _ = PretrainStep(teacher, MaskedFeatures())(model, parts[0])
    loss.backward()
    return float(loss.item())


def our_step(
    model: nn.Module, teacher: ClipTeacher, args: argparse.Namespace, device: torch.device
) -> Step:
    groups = layer_decay_groups(model, OPTIMIZER, depth=args.depth)
    step_fn = PretrainStep(teacher, MaskedFeatures())
    return engine_step(model, groups, step_fn, OPTIMIZER, args, device=device)


def their_step(
    model: nn.Module, teacher: ClipTeacher, args: argparse.Namespace, device: torch.device
) -> Step:
    """That of a plain loop."""
    single = ("pos_embed", "cls_token", "mask_token")
    groups = param_groups_weight_decay(model, OPTIMIZER.weight_decay, no_weight_decay_list=single)
    backward = partial(plain_passes, model, teacher, dtype=DTYPES[args.precision])
    return plain_step(model, groups, backward, OPTIMIZER, args, device=device)


def compare(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    distributed.seed_all(SEED)
    teacher = build_teacher(args, device)
    batch = make_batch(args, teacher)
    ours, plain = (build(name, args, 0.0, target_dim=teacher.dim) for name in ("ours", "plain"))
    weights = ours.state_dict()
    plain.load_state_dict(weights)
    there = to_device(batch, device)
    wanted, found = (
        gradients_of(model.to(device).eval(), partial(passes, model, teacher, [there]))
        for model, passes in ((ours, our_passes), (plain, plain_passes))
    )
    yield from require_equal("a plain step", found, wanted)
    del ours, plain, wanted, found
    make_ours = partial(build, "ours", args, 0.0, target_dim=teacher.dim)
    yield "GFLOP of a sample in training", 3 * forward_flops(make_ours, image_input(SIDE)) / 1e9
    for rate in args.drop_path:
        calls = {}
        for name, make in (("ours", our_step), ("a plain step", their_step)):
            model = build(name, args, rate, target_dim=teacher.dim)
            model.load_state_dict(weights)
            calls[name] = partial(make(model.to(device), teacher, args, device), [batch])
        title = f"drop path {rate}"
        yield from beside(title, calls, rounds=args.rounds, device=device, items=args.batch)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = parser_of_sizes(__doc__, batch=4, rounds=5)
    parser.add_argument("--drop-path", type=float, nargs="+", default=[0.1, 0.4], help="rates")
    add_precision(parser)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    device = distributed.start()
    show(compare(args, device), rounds=args.rounds)
    distributed.stop()


if __name__ == "__main__":
    main()
