"""Cases of the bench: forward passes and training steps of models, weights equal to a peer's.

Letters: B images, C channels, H x W patches.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.layers import ShapeSpec  # noqa: F401  # for LazyConfig
from detectron2.modeling import GeneralizedRCNN, SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads
from measuring import Case, Scale, precisions, require_same
from mmseg.models.backbones import BEiT
from timm.models.eva import Eva
from torch import Tensor, nn

from eva_backbone import VisionTransformer
from eva_engine.steps.flops import forward_flops, image_input
from eva_runs.precision import DTYPES, lower_backbone

SIDE, PATCH = 224, 16  # pixels of an encoder's image, of a patch in detectors and segmentors
CLASSES = 80
RECIPE = "detection/configs/common/cascade_mask_rcnn_vitdet_eva.py"

Forward = Callable[[Any, Tensor], Tensor]
Models = Mapping[str, tuple[nn.Module, Forward]]  # ours first


def passes(
    title: str, models: Models, images: Tensor, device: torch.device, *, flops: float = 0.0
) -> Iterator[Case]:
    """Yield the forward pass in each precision, and a step by autocast with AdamW.

    Args:
        title: Begin of the cases' titles.
        models: Name -> model, and how it is called; all must give the same.
        images: (B, 3, H, W).
        device: Device to compute on.
        flops: Of the forward pass for one image, or 0.
    """
    images, total = images.to(device), flops * len(images)
    with torch.no_grad():
        first, *others = (call(model.to(device), images) for model, call in models.values())
    for other in others:
        require_same(title, other, first)
    for kind in precisions(device):
        about: dict[str, Any] = {"items": len(images), "unit": "images", "precision": kind}
        forwards, dtype = {}, DTYPES[kind]
        for name, (model, call) in models.items():
            cast = copy.deepcopy(model).requires_grad_(False).to(dtype)
            cast.eval()  # mmsegmentation's returns nothing
            forwards[name] = partial(_forward, cast, call, images.to(dtype))
        yield Case(f"{title}, forward, {kind}", forwards, flops=total, **about)
        del forwards
        steps = {}
        for name, (model, call) in models.items():
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
            steps[name] = partial(_step, model, call, images, optimizer, dtype)
        yield Case(f"{title}, training step, {kind}", steps, flops=3 * total, **about)


@torch.no_grad()
def _forward(model: nn.Module, call: Forward, images: Tensor) -> None:
    call(model, images)


def _step(
    model: nn.Module, call: Forward, images: Tensor, optimizer: Any, dtype: torch.dtype
) -> None:
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = call(model, images).float().square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def timm_eva(cls: type[Eva], scale: Scale, **options: Any) -> Eva:
    """Build timm's EVA (or a class of it) of the sizes of ours, for 224 px."""
    return cls(
        img_size=SIDE, patch_size=14, embed_dim=scale.width, depth=scale.depth,
        num_heads=scale.heads, mlp_ratio=(scale.mlp + 0.5) / scale.width,  # timm rounds down
        num_classes=0, global_pool="", norm_layer=partial(nn.LayerNorm, eps=1e-6), **options,
    )  # fmt: skip


def encoder(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The plain ViT beside timm's EVA, 224 px, patches of 14."""
    build = partial(
        VisionTransformer, img_size=SIDE, patch_size=14, embed_dim=scale.width,
        depth=scale.depth, num_heads=scale.heads, mlp_dim=scale.mlp,
    )  # fmt: skip
    ours, peer = build(), timm_eva(Eva, scale)
    peer.load_state_dict(ours.state_dict())
    forwards: Models = {
        "ours": (ours, VisionTransformer.forward_features),
        "timm": (peer, Eva.forward_features),
    }
    images = torch.randn(scale.batch, 3, SIDE, SIDE)
    title, flops = f"encoder {scale.name} b{scale.batch}", forward_flops(build, image_input(SIDE))
    yield from passes(title, forwards, images, device, flops=flops)


def vitdet_arguments(scale: Scale) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of our ViT and of detectron2's for detection; every fourth block is global."""
    both = {
        "img_size": scale.side, "patch_size": PATCH, "embed_dim": scale.width,
        "depth": scale.depth, "num_heads": scale.heads, "pretrain_img_size": SIDE,
        "window_size": min(16, scale.side // PATCH),
    }  # fmt: skip
    globally = [*range(min(3, scale.depth - 1), scale.depth, 4)]
    windows = [index for index in range(scale.depth) if index not in globally]
    ours = {
        "mlp_dim": 4 * scale.width, "qkv_bias": "qkv", "extra_tokens": (), "final_norm": False,
        "global_attn_indexes": globally, "rel_pos": "vitdet",
    }  # fmt: skip
    norm = partial(nn.LayerNorm, eps=1e-6)
    theirs = {"norm_layer": norm, "use_rel_pos": True, "window_block_indexes": windows}
    return both | ours, both | theirs


def _fill_tables(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)  # relative positions, which begin at 0


def vitdet(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The backbone of detectors beside detectron2's ViT, with relative positions."""
    arguments, of_peer = vitdet_arguments(scale)
    ours, peer = VisionTransformer(**arguments), ViT(**of_peer)
    _fill_tables(ours)
    peer.load_state_dict(ours.state_dict())
    forwards: Models = {
        "ours": (ours, VisionTransformer.forward_feature_map),
        "detectron2": (peer, lambda model, images: model(images)["last_feat"]),
    }
    batch = max(1, scale.batch // 4)
    images = torch.randn(batch, 3, scale.side, scale.side)
    flops = forward_flops(partial(_MapOnly, arguments), image_input(scale.side))
    title = f"ViTDet {scale.name} b{batch} {scale.side} px"
    yield from passes(title, forwards, images, device, flops=flops)


class _MapOnly(VisionTransformer):
    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__(**arguments)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_feature_map(images)


def detector(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Cascade Mask R-CNN per image beside one of detectron2's own classes alone."""
    arguments, of_peer = vitdet_arguments(scale)
    config = LazyConfig.load(str(Path(__file__).parents[1] / RECIPE)).model
    config.backbone.net = LazyCall(VisionTransformer)(**arguments)
    config.backbone.square_pad = scale.side
    proposals = 1000 if scale.side >= 1024 else 100
    config.proposal_generator.post_nms_topk = (2 * proposals, proposals)
    ours = instantiate(config)
    config._target_, config.proposal_generator._target_ = GeneralizedRCNN, RPN
    config.roi_heads._target_ = CascadeROIHeads
    config.backbone = LazyCall(SimpleFeaturePyramid)(
        net=LazyCall(ViT)(**of_peer), in_feature="last_feat", out_channels=256, norm="LN",
        scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LazyCall(LastLevelMaxPool)(),
        square_pad=scale.side,
    )  # fmt: skip
    peer = instantiate(config)
    _fill_tables(ours)
    for predictor in ours.roi_heads.box_predictor:
        predictor.cls_score.weight.data *= 20  # random scores that reach the threshold
    peer.load_state_dict(ours.state_dict())
    image = torch.randint(0, 256, (3, scale.side, scale.side), dtype=torch.uint8)
    models = {"ours": ours, "detectron2": peer}
    for kind in precisions(device):
        calls = {}
        for name, model in models.items():
            lower_backbone(model.to(device).eval().backbone, kind, device)
            calls[name] = partial(_detect, model, image)
        if kind == "fp32":
            mine, theirs = (call() for call in calls.values())
            require_same("detector", theirs.scores, mine.scores)
        title = f"detector {scale.name} {scale.side} px, {proposals} proposals, {kind}"
        yield Case(title, calls, unit="images")


@torch.no_grad()
def _detect(model: nn.Module, image: Tensor) -> Any:
    return model([{"image": image, "height": image.shape[1], "width": image.shape[2]}])[0][
        "instances"
    ]


def segmentation(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The ViT of segmentors with BEiT's bias tables beside mmsegmentation's BEiT.

    mmsegmentation has no ViT-Adapter, so neither side has it.
    """
    side = scale.side // 2
    ours = VisionTransformer(
        img_size=side, patch_size=PATCH, embed_dim=scale.width, depth=scale.depth,
        num_heads=scale.heads, mlp_dim=4 * scale.width, rel_pos="table", layer_scale=0.1,
        final_norm=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = BEiT(
            img_size=side, patch_size=PATCH, embed_dims=scale.width, num_layers=scale.depth,
            num_heads=scale.heads, mlp_ratio=4, norm_cfg={"type": "LN", "eps": 1e-6},
        )  # fmt: skip
    _fill_tables(ours)
    ours.pos_embed.requires_grad_(False)  # the peer has none; ours is 0
    ours.pos_embed.zero_()
    weights = {_of_mmseg(name): value for name, value in ours.state_dict().items()}
    del weights["pos_embed"]
    missing = peer.load_state_dict(weights, strict=False)
    assert all("index" in name for name in missing.missing_keys), missing
    assert not missing.unexpected_keys, missing
    forwards: Models = {
        "ours": (ours, VisionTransformer.forward_feature_map),
        "mmsegmentation": (peer, lambda model, images: model(images)[0]),
    }
    batch = max(1, scale.batch // 2)
    title = f"segmentation, BEiT {scale.name} b{batch} {side} px"
    yield from passes(title, forwards, torch.randn(batch, 3, side, side), device)


def _of_mmseg(name: str) -> str:
    names = {
        r"^blocks\.": "layers.", r"\.norm(\d)\.": r".ln\1.", r"^patch_embed\.proj":
        "patch_embed.projection", r"\.mlp\.fc1": ".ffn.layers.0.0",
        r"\.mlp\.fc2": ".ffn.layers.1",
    }  # fmt: skip
    for ours, theirs in names.items():
        name = re.sub(ours, theirs, name)
    return name
