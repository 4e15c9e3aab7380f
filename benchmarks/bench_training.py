"""Cases of the bench: masked image modelling and CLIP beside plain loops with timm and open_clip.

Ours are the steps of the engine through DeepSpeed; the peers' are plain loops with automatic mixed
precision and torch's AdamW. Before they are timed, both must have the same loss and gradients.

Letters: B images, N patches of an image, K masked patches of the batch, C channels, D of a target.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
import torch.nn.functional as F
from bench_data import write_images
from bench_models import SIDE, plain_step, timm_eva
from measuring import Case, Names, Scale, precisions, require_same, with_our_weights
from timm.models.eva import Eva
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier, class_features
from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip
from eva_contrastive.step import ContrastiveStep, build_loss, parameter_groups
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.evaluation.counting import OneLabel, count
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.micro_batches import MicroBatches, forward_and_backward
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups
from eva_pretrain import masked_image_modeling as modelling
from eva_pretrain.teachers import ClipTeacher
from eva_runs.data_order import Batch, to_device
from eva_runs.precision import DTYPES

TEACHER, EVA_DEPTH, MASKED = "ViT-L-14", 40, 105
OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=3.0)
STOCK, LENGTH, WORDS, KINDS, UNUSED = "EVA01-g-14", 77, 49408, 20, Path("unused")
SIZES: dict[str, dict[str, Any]] = {  # EVA-CLIP-g, its first blocks for a CPU, and a trial
    "complete": {},
    "slice": {"depth": 2, "text_overrides": {"depth": 1}},
    "trial": {
        "vision": "eva_debug",
        "patch_size": 14,
        "img_size": 56,
        "depth": 2,
        "embed_dim": 16,
        "text_overrides": {"width": 16, "depth": 1, "num_heads": 2},
    },
}
TEMPLATES = [f"a {kind} photo of a {{}}." for kind in ("good", "bad", "large", "small", "dark")]


def training(
    title: str,
    device: torch.device,
    build: Callable[[str], tuple[Any, Any]],
    groups: Callable[[Any], list[ParameterGroup]],
    step_fn: Any,
    peer: str,
    peer_loss: Callable[[Any, Any], Tensor],
    batch: Any,
    names: Names = dict,
    **about: Any,
) -> Iterator[Case]:
    """Yield a step of `eva_engine.loop`, through DeepSpeed, beside a plain one, in each precision.

    `build` makes our model and the peer's, whose loss of a model and batch is `peer_loss` and whose
    names of weights `names` makes of ours. Each step begins with the copy of the batch.
    """
    single = ("pos_embed", "cls_token", "mask_token")

    def case(kind: Any) -> Case:
        ours, other = (model.to(device) for model in build(kind))
        if kind == "fp32":
            losses = lambda data: step_fn(ours, data)[0], partial(peer_loss, other)
            require_equal_steps(title, (ours, other), losses, to_device(batch, device), names)
        run = RunConfig(output=UNUSED, precision=kind, zero_stage=1 if kind != "fp32" else 0)
        engine = TrainingEngine(ours, groups=groups(ours), optimizer=OPTIMIZER, run=run)
        engine.engine.train()

        def step() -> None:
            engine.set_learning_rate(OPTIMIZER.lr)
            loaded = iter([Batch(data=batch, draws=[], unreadable={})])
            micro_batches = MicroBatches(loaded, count=1, device=device, seeds=(0, 0))
            forward_and_backward(engine, step_fn, micro_batches)
            assert engine.gradients_are_finite()
            engine.step()

        decayed = param_groups_weight_decay(other, OPTIMIZER.weight_decay, single)
        optimizer = torch.optim.AdamW(decayed, OPTIMIZER.lr, OPTIMIZER.betas, OPTIMIZER.eps)
        plain = plain_step(
            other,
            lambda: peer_loss(other, to_device(batch, device)),
            optimizer,
            kind,
            device,
            OPTIMIZER.clip_grad,
        )
        return Case(f"{title}, training step, {kind}", {"ours": step, peer: plain}, **about)

    distributed.start()  # the engine needs a process group
    try:
        yield from map(case, precisions(device))
    finally:
        distributed.stop()


def require_equal_steps(
    title: str, models: Sequence[nn.Module], losses: Sequence[Any], batch: Any, names: Names
) -> None:
    """Compare the losses of ours and a peer, and the gradients, without stochastic depth."""
    steps = []
    for model, loss_of, renamed in zip(models, losses, (names, dict), strict=True):
        model.eval()
        loss = loss_of(batch)
        loss.backward()
        gradients = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        steps.append((loss.detach(), renamed(gradients)))
        model.zero_grad()
    (mine, reference), (theirs, grads) = steps
    require_same(f"{title}, loss", theirs, mine)
    both = (
        torch.cat([gradients_of_side[key].flatten() for key in reference])
        for gradients_of_side in (grads, reference)
    )
    require_same(f"{title}, gradients", *both)


class PlainModel(Eva):
    """timm's EVA with a mask token and a head of `target_dim` outputs."""

    def __init__(self, *, target_dim: int, **sizes: Any) -> None:
        super().__init__(**sizes)
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


def build_teacher(scale: Scale) -> ClipTeacher:
    """Build open_clip's tower with random weights, whose patches are as many as the student's."""
    config = open_clip.get_model_config(TEACHER)
    vision = config["vision_cfg"]
    # EVA-g's teacher has to do a tenth of the work of EVA-g; it keeps that share
    layers = max(1, round(vision["layers"] * scale.depth / EVA_DEPTH))
    vision |= {"layers": layers, "image_size": SIDE // 14 * vision["patch_size"]}
    text_config = {"context_length": 1, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
    return ClipTeacher(open_clip.CLIP(config["embed_dim"], vision, text_config).visual)


def mim(scale: Scale, device: torch.device) -> Iterator[Case]:
    """A step of pre-training with its teacher beside a plain loop with timm's blocks.

    Of the published speed, 24.6 images/s on an A100 (3150 on 128), the depth is 40, the batch 32.
    """
    teacher = build_teacher(scale).to(device)
    masking = modelling.BlockMasking(grid=(SIDE // 14,) * 2, num_masked=MASKED, min_block=16)
    sizes: Any = {"target_dim": teacher.dim, "drop_path_rate": 0.1}
    batch = modelling.collate(
        [
            {
                "images": image,
                "teacher_images": torch.randn(3, *teacher.image_size),
                "mask": torch.from_numpy(masking()),
            }
            for image in torch.randn(scale.batch, 3, SIDE, SIDE)
        ]
    )

    def build(kind: str) -> tuple[nn.Module, nn.Module]:
        teacher.to(DTYPES[kind])
        ours = modelling.MaskedImageModeling(
            img_size=SIDE, patch_size=14, mlp_dim=scale.mlp, **scale.vit, **sizes
        )
        return with_our_weights(ours, timm_eva(PlainModel, scale, **sizes))

    def peer_loss(model: nn.Module, data: dict[str, Tensor]) -> Tensor:
        mask = data["mask"].flatten(1)
        features, predictions = teacher(data["teacher_images"]), model(data["images"], mask)
        return -F.cosine_similarity(predictions.float(), features[mask].float(), dim=-1).mean()

    return training(
        f"MIM {scale.name} b{scale.batch}",
        device,
        build,
        partial(layer_decay_groups, settings=OPTIMIZER, depth=scale.depth),
        modelling.PretrainStep(teacher, modelling.MaskedFeatures()),
        "plain loop, timm",
        peer_loss,
        batch,
        items=scale.batch,
        unit="images",
    )


def build_pair(size: str) -> tuple[EvaClip, Any]:
    """Build ours and open_clip's stock model, or one like it of other sizes."""
    ours: Any = build_eva_clip(**SIZES[size])
    nn.init.normal_(ours.visual.head.weight)  # else one class is the best everywhere
    config = open_clip.get_model_config(STOCK)
    vision = config["vision_cfg"]
    text_config = config["text_cfg"]
    dim = config["embed_dim"]
    sizes = {}
    if size != "complete":
        vit, words, dim = ours.visual, ours.text, ours.embed_dim
        ratio = (vit.blocks[0].mlp.fc1.out_features + 0.5) / vit.embed_dim
        sizes = {
            "img_size": vit.img_size,
            "embed_dim": vit.embed_dim,
            "depth": vit.depth,
            "num_heads": vit.num_heads,
            "mlp_ratio": ratio,
        }
        vision |= {"image_size": vit.img_size}
        text_config |= {"width": words.width, "heads": words.heads, "layers": words.depth}
    with mock.patch.object(timm, "create_model", partial(timm.create_model, **sizes)):
        peer = open_clip.CustomTextCLIP(dim, vision, text_config, output_dict=True)
    return with_our_weights(ours, peer, peer_weights)


def peer_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our model's weights as open_clip's."""
    renamed = {
        re.sub(r"^visual\.", "visual.trunk.", name): value for name, value in weights.items()
    }
    return renamed | {"logit_scale": renamed.pop("text.logit_scale").reshape(())}


def clip(scale: Scale, device: torch.device) -> Iterator[Case]:
    """A contrastive step beside open_clip's `EVA01-g-14` through timm, and its loss.

    Our last block computes for the class token alone, which saves much of a tower of two blocks and
    2 % of EVA-CLIP-g.
    """
    pairs, tower = 2 * scale.batch, TowerConfig(lr=OPTIMIZER.lr)
    side = SIZES[scale.towers].get("img_size", SIDE)
    config = ContrastiveConfig(
        model=ModelConfig(variant="eva_g_patch14"),
        data=DataConfig(train="unused"),
        vision=tower,
        text=tower,
        optimizer=OPTIMIZER,
        run=RunConfig(output=UNUSED),
    )
    tokens = torch.randint(1, WORDS - 1, (pairs, LENGTH))  # texts of 8 to 60 random words
    ends, positions = torch.randint(8, 60, (pairs, 1)), torch.arange(LENGTH)
    tokens[positions == ends] = WORDS - 1  # its largest number ends a text
    tokens[positions > ends] = 0
    return training(
        f"CLIP, {scale.towers} of EVA-CLIP-g, b{pairs}",
        device,
        lambda kind: build_pair(scale.towers),
        partial(parameter_groups, config),
        ContrastiveStep(build_loss("contrastive")),
        "open_clip",
        lambda model, data: open_clip.ClipLoss()(**model(*data)),
        (torch.randn(pairs, 3, side, side), tokens),
        peer_weights,
        items=pairs,
        unit="pairs",
    )


def zero_shot(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Zero-shot classification of JPEG files beside open_clip's way, and the classes' features."""
    number, batch = max(KINDS, scale.items // 4), 4 * scale.batch
    ours, peer = (model.eval().to(device) for model in build_pair(scale.towers))
    side, normal = ours.image_size, dict[str, Any](mean=CLIP_MEAN, std=CLIP_STD)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), number, kinds=KINDS)
        samples = open_labelled(folder, evaluation_transform(side, **normal), upright=False)
        theirs = ImageFolder(folder, open_clip.image_transform(side, is_train=False, **normal))
        texts = {
            "ours": partial(class_features, ours, samples.classes, TEMPLATES),
            "open_clip": partial(
                open_clip.build_zero_shot_classifier,
                peer,
                open_clip.SimpleTokenizer(),
                theirs.classes,
                TEMPLATES,
                device=device,
            ),
        }
        mine, reference = (call() for call in texts.values())
        require_same("zero-shot, features of classes", reference.T, mine)

        def our_count() -> int:
            counts = count(
                ZeroShotClassifier(ours, mine),
                samples,
                {"": OneLabel()},
                device=device,
                batch_size=batch,
                workers=0,
            )
            return counts.scores[""].right1

        @torch.inference_mode()
        def peer_count() -> int:
            right = 0
            for images, labels in DataLoader(theirs, batch):
                features = peer(image=images.to(device))["image_features"]
                right += int(((100.0 * features @ reference).argmax(1).cpu() == labels).sum())
            return right

        if device.type == "cpu" and our_count() != peer_count():
            raise ValueError("zero-shot: the two evaluations do not find the same")
        title = f"zero-shot, {scale.towers} of EVA-CLIP-g"
        images = {"ours": our_count, "open_clip": peer_count}
        yield Case(f"{title}, JPEG files, b{batch}", images, items=number, unit="images")
        yield Case(f"{title}, features of {KINDS} classes", texts)
