"""Cases of the bench: masked image modelling and CLIP beside plain loops with timm and open_clip.

Ours are the steps of the engine through DeepSpeed; the peers' are plain loops with automatic mixed
precision and torch's AdamW. Before they are timed, both must have the same loss and gradients.

Letters: B images, N patches of an image, K masked patches of the batch or classes, C channels.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
import torch.nn.functional as F
from bench_data import write_images
from bench_models import SIDE, timm_eva
from measuring import Case, Scale, precisions, require_same
from open_clip import ClipLoss
from timm.models import eva as timm_models
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
from eva_engine.steps.micro_batches import MicroBatches, StepFn, forward_and_backward
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups
from eva_pretrain.masked_image_modeling import (
    BlockMasking,
    MaskedFeatures,
    MaskedImageModeling,
    PretrainStep,
    collate,
)
from eva_pretrain.teachers import ClipTeacher
from eva_runs.data_order import Batch, to_device
from eva_runs.precision import DTYPES

TEACHER, EVA_DEPTH, MASKED = "ViT-L-14", 40, 105
DROP_PATH = 0.1
MIM_OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=3.0)
CLIP_OPTIMIZER = OptimizerConfig(lr=1e-4, betas=(0.9, 0.98), eps=1e-6, clip_grad=5.0)
STOCK, LENGTH, WORDS, KINDS = "EVA01-g-14", 77, 49408, 20
SIZES: dict[str, dict[str, Any]] = {  # EVA-CLIP-g, its first blocks for a CPU, and a trial
    "complete": {},
    "slice": {"depth": 2, "text_overrides": {"depth": 1}},
    "trial": {"vision": "eva_debug", "patch_size": 14, "img_size": 56, "depth": 2, "embed_dim": 16,
              "text_overrides": {"width": 16, "depth": 1, "num_heads": 2}},
}  # fmt: skip
TEMPLATES = [f"a {kind} photo of a {{}}." for kind in ("good", "bad", "large", "small", "dark")]

Loss = Callable[[Any], Tensor]  # of a batch on the device


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Be a process group of one, which the engine needs."""
    distributed.start()
    distributed.seed_all(0)
    try:
        yield
    finally:
        distributed.stop()


def as_loaded(batch: Any, device: torch.device) -> MicroBatches:
    """Give a batch as the loop has it from the loader."""
    loaded = iter([Batch(data=batch, items=[], unreadable={})])
    return MicroBatches(loaded, count=1, device=device, seeds=(0, 0))


def engine_step(
    model: nn.Module, groups: list[ParameterGroup], step_fn: StepFn, optimizer: OptimizerConfig,
    kind: Any, batch: Any, device: torch.device,
) -> Callable[[], None]:  # fmt: skip
    """Build a step of `eva_engine.loop`, through DeepSpeed, with the copy of the batch."""
    run = RunConfig(output=Path("unused"), precision=kind, zero_stage=1 if kind != "fp32" else 0)
    engine = TrainingEngine(model, groups=groups, optimizer=optimizer, run=run)
    engine.engine.train()

    def step() -> None:
        engine.set_learning_rate(optimizer.lr)
        forward_and_backward(engine, step_fn, as_loaded(batch, device))
        assert engine.gradients_are_finite()
        engine.step()

    return step


def plain_step(
    model: nn.Module, loss_of: Loss, settings: OptimizerConfig, kind: str, batch: Any,
    device: torch.device,
) -> Callable[[], None]:  # fmt: skip
    """Build the step of a plain loop: autocast, scaled loss, clipped gradients, AdamW."""
    single = ("pos_embed", "cls_token", "mask_token")
    groups = param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=single)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    scaler = torch.amp.GradScaler(device.type, enabled=kind == "fp16")
    model.train()

    def step() -> None:
        with torch.autocast(device.type, DTYPES[kind], enabled=kind != "fp32"):
            loss = loss_of(to_device(batch, device))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        loss.item()

    return step


def require_equal_steps(title: str, ours: tuple[nn.Module, Loss], peer: tuple[nn.Module, Loss],
                        batch: Any, names: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
                        ) -> None:  # fmt: skip
    """Compare losses and gradients, ours by `names` of the peer's."""
    losses, gradients = [], []
    for model, loss_of in (ours, peer):
        model.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        losses.append(loss.detach())
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        gradients.append(found if model is peer[0] else names(found))
        del found
    require_same(f"{title}, loss", losses[1], losses[0])
    mine, theirs = (torch.cat([one[key].flatten() for key in gradients[0]]) for one in gradients)
    require_same(f"{title}, gradients", theirs, mine)
    for model, _ in (ours, peer):
        model.zero_grad()


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
    text = {"context_length": 1, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
    clip = open_clip.CLIP(config["embed_dim"], vision_cfg=vision, text_cfg=text)
    return ClipTeacher(clip.visual)


def mim(scale: Scale, device: torch.device) -> Iterator[Case]:
    """A step of pre-training with its teacher beside a plain loop with timm's blocks.

    Of the published speed, 24.6 images/s on an A100 (3150 on 128), the depth is 40, the batch 32.
    """
    with group():
        teacher = build_teacher(scale).to(device)
        masking = BlockMasking(grid=(SIDE // 14,) * 2, num_masked=MASKED, min_block=16)
        noise, sides = torch.randn(scale.batch, 3, SIDE, SIDE), teacher.image_size
        batch = collate([
            {"images": one, "teacher_images": torch.randn(3, *sides),
             "mask": torch.from_numpy(masking())} for one in noise
        ])  # fmt: skip

        def build(rate: float) -> tuple[nn.Module, nn.Module]:
            ours = MaskedImageModeling(
                target_dim=teacher.dim, img_size=SIDE, patch_size=14, embed_dim=scale.width,
                depth=scale.depth, num_heads=scale.heads, mlp_dim=scale.mlp, drop_path_rate=rate,
            )  # fmt: skip
            peer = timm_eva(PlainModel, scale, target_dim=teacher.dim, drop_path_rate=rate)
            peer.load_state_dict(ours.state_dict())
            return ours.to(device), peer.to(device)

        def peer_loss(model: nn.Module, data: dict[str, Any]) -> Tensor:
            mask = data["mask"].flatten(1)
            features, found = teacher(data["teacher_images"]), model(data["images"], mask)
            return -F.cosine_similarity(found.float(), features[mask].float(), dim=-1).mean()

        step_fn = PretrainStep(teacher, MaskedFeatures())
        ours, peer = build(0.0)
        losses = partial(_own_loss, step_fn, ours), partial(peer_loss, peer)
        models = ours.eval(), peer.eval()
        mine, theirs = zip(models, losses, strict=True)
        require_equal_steps("MIM", mine, theirs, to_device(batch, device))
        del ours, peer, losses, models, mine, theirs
        for kind in precisions(device):
            teacher.to(DTYPES[kind])
            ours, peer = build(DROP_PATH)
            groups = layer_decay_groups(ours, MIM_OPTIMIZER, depth=scale.depth)
            calls = {
                "ours": engine_step(ours, groups, step_fn, MIM_OPTIMIZER, kind, batch, device),
                "plain loop, timm": plain_step(
                    peer, partial(peer_loss, peer), MIM_OPTIMIZER, kind, batch, device
                ),
            }
            title = f"MIM {scale.name} b{scale.batch}, training step, {kind}"
            yield Case(title, calls, items=scale.batch, unit="images")
            del ours, peer, groups, calls


def _own_loss(step_fn: Any, model: nn.Module, data: Any) -> Tensor:
    loss: Tensor = step_fn(model, data)[0]
    return loss


def build_ours(size: str) -> EvaClip:
    """Build the toolkit's CLIP."""
    return build_eva_clip(**SIZES[size])


def build_peer(size: str) -> nn.Module:
    """Build open_clip's stock model, or one like it with other sizes."""
    config = open_clip.get_model_config(STOCK)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if size != "complete":
        with torch.device("meta"):
            ours: Any = build_ours(size)
        visual, width = ours.visual, ours.visual.embed_dim
        sizes = {
            "img_size": visual.img_size, "embed_dim": width, "depth": visual.depth,
            "num_heads": visual.num_heads,
            "mlp_ratio": (visual.blocks[0].mlp.fc1.out_features + 0.5) / width,
        }  # fmt: skip

        def eva_slice(**options: Any) -> nn.Module:
            model: nn.Module = timm_models.eva_giant_patch14_224(**sizes | options)
            return model

        with warnings.catch_warnings(action="ignore"):  # of a second one
            timm.models.register_model(eva_slice)
        vision |= {"timm_model_name": "eva_slice", "image_size": visual.img_size}
        text |= {"width": ours.text.width, "heads": ours.text.heads, "layers": ours.text.depth}
        config["embed_dim"] = ours.embed_dim
    model: nn.Module = open_clip.CustomTextCLIP(config["embed_dim"], vision, text, output_dict=True)
    return model


def peer_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our model's weights as open_clip's."""
    found = {
        name.replace("visual.", "visual.trunk.", name.startswith("visual.")): value
        for name, value in weights.items()
    }
    found["logit_scale"] = found.pop("text.logit_scale").reshape(())
    return found


def build_pair(size: str) -> tuple[EvaClip, Any]:
    """Build ours and open_clip's with the same weights."""
    ours, peer = build_ours(size), build_peer(size)
    peer.load_state_dict(peer_weights(ours.state_dict()))
    return ours, peer


def make_pairs(side: int, pairs: int) -> tuple[Tensor, Tensor]:
    """Make noise, and texts of 8 to 60 random words."""
    tokens = torch.randint(1, WORDS - 1, (pairs, LENGTH))
    ends, place = torch.randint(8, 60, (pairs, 1)), torch.arange(LENGTH)
    tokens = torch.where(place == ends, WORDS - 1, tokens)  # its largest number ends a text
    return torch.randn(pairs, 3, side, side), torch.where(place > ends, 0, tokens)


def clip(scale: Scale, device: torch.device) -> Iterator[Case]:
    """A contrastive step beside open_clip's `EVA01-g-14` through timm, and its loss.

    Our last block computes for the class token alone, which saves much of a tower of two blocks and
    2 % of EVA-CLIP-g.
    """

    def peer_loss(model: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        found, loss_of = model(*data), ClipLoss()
        loss: Tensor = loss_of(*(found[key] for key in names), found["logit_scale"])
        return loss

    def our_loss(model: EvaClip, data: tuple[Tensor, Tensor]) -> Tensor:
        loaded = as_loaded(data, device)
        step_fn.begin(model, loaded)
        return _own_loss(step_fn, model, next(iter(loaded)))

    with group():
        names = ("image_features", "text_features")
        ours, peer = (one.to(device) for one in build_pair(scale.towers))
        step_fn = ContrastiveStep(build_loss("contrastive"))
        side, pairs = ours.visual.img_size, 2 * scale.batch
        batch = make_pairs(side, pairs)
        mine, theirs = (ours, partial(our_loss, ours)), (peer, partial(peer_loss, peer))
        require_equal_steps("CLIP", mine, theirs, to_device(batch, device), peer_weights)
        del ours, peer, mine, theirs
        for kind in precisions(device):
            ours, peer = (one.to(device) for one in build_pair(scale.towers))
            config = ContrastiveConfig(
                model=ModelConfig(variant="eva_g_patch14", image_size=side),
                data=DataConfig(train="unused"), vision=TowerConfig(lr=1e-4),
                text=TowerConfig(lr=1e-4), optimizer=CLIP_OPTIMIZER,
                run=RunConfig(output=Path("unused")),
            )  # fmt: skip
            groups = parameter_groups(config, ours)
            calls = {
                "ours": engine_step(ours, groups, step_fn, CLIP_OPTIMIZER, kind, batch, device),
                "open_clip": plain_step(
                    peer, partial(peer_loss, peer), CLIP_OPTIMIZER, kind, batch, device
                ),
            }
            title = f"CLIP, {scale.towers} of EVA-CLIP-g, b{pairs}, training step, {kind}"
            yield Case(title, calls, items=pairs, unit="pairs")
            del ours, peer, groups, calls


def zero_shot(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Zero-shot classification of JPEG files beside open_clip's way, and the classes' features."""
    with group(), tempfile.TemporaryDirectory() as folder:
        number, batch = max(KINDS, scale.items // 4), 4 * scale.batch
        write_images(Path(folder), number, kinds=KINDS)
        ours, peer = (one.eval().to(device) for one in build_pair(scale.towers))
        head: Any = ours.visual.head
        nn.init.normal_(head.weight)  # else one class is the best everywhere
        peer.load_state_dict(peer_weights(ours.state_dict()))
        side: int = ours.visual.img_size
        normal: Any = {"mean": CLIP_MEAN, "std": CLIP_STD}
        samples = open_labelled(folder, evaluation_transform(side, **normal), upright=False)
        theirs = ImageFolder(folder, open_clip.image_transform(side, is_train=False, **normal))
        texts = {
            "ours": partial(class_features, ours, samples.classes, TEMPLATES),
            "open_clip": partial(
                open_clip.build_zero_shot_classifier, peer, open_clip.SimpleTokenizer(),
                theirs.classes, TEMPLATES, device=device,
            ),
        }  # fmt: skip
        features = {name: call() for name, call in texts.items()}
        require_same("zero-shot, features of classes", features["open_clip"].T, features["ours"])

        def our_count() -> int:
            score = count(
                ZeroShotClassifier(ours, features["ours"]), samples, {"": OneLabel()},
                device=device, batch_size=batch, workers=0,
            )  # fmt: skip
            return score.scores[""].right1

        @torch.inference_mode()
        def peer_count() -> int:
            right, loader = 0, DataLoader(theirs, batch)
            for images, labels in loader:
                found = peer(image=images.to(device))["image_features"]
                best = (100.0 * found @ features["open_clip"]).argmax(1)
                right += int((best.cpu() == labels).sum())
            return right

        if device.type == "cpu" and our_count() != peer_count():
            raise ValueError("zero-shot: the two evaluations do not find the same")
        title = f"zero-shot, {scale.towers} of EVA-CLIP-g"
        images = {"ours": our_count, "open_clip": peer_count}
        yield Case(f"{title}, JPEG files, b{batch}", images, items=number, unit="images")
        yield Case(f"{title}, features of {KINDS} classes", texts)
