"""Cases of the bench: forward passes and training steps of models, weights equal to a peer's."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.layers import ShapeSpec  # noqa: F401  # for LazyConfig
from detectron2.modeling import GeneralizedRCNN, SimpleFeaturePyramid, ViT
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads
from measuring import Call, Case, Scale, precisions, require_same, with_our_weights
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.backbones import BEiT
from timm.models.eva import Eva
from torch import Tensor, nn

from eva_backbone import VisionTransformer, build_vit
from eva_backbone.checkpoints.families import to_eva_names
from eva_backbone.variants import detector_arguments
from eva_engine.flops import forward_flops, image_input
from eva_runs.precision import DTYPES, lower_backbone
from eva_segmentation import planning
from eva_segmentation.parts import vit

SIDE, PATCH = 224, 16  # pixels of an encoder's image, of a patch in detectors and segmentors
RECIPE = Path(__file__).parents[1] / "detection/configs/common/cascade_mask_rcnn_vitdet_eva.py"
MMSEG = {  # parts of our names -> mmsegmentation's
    r"^blocks\.": "layers.",
    r"\.norm(\d)\.": r".ln\1.",
    r"\.mlp\.fc1": ".ffn.layers.0.0",
    r"\.mlp\.fc2": ".ffn.layers.1",
    r"^patch_embed\.proj": "patch_embed.projection",
}
SEGMENTORS = Path(__file__).parents[1] / "segmentation/configs/ade20k"
MASK2FORMER = "mask2former_eva_l_896_20k"  # in crops of another size here
NORM = partial(nn.LayerNorm, eps=1e-6)

MAP = VisionTransformer.forward_feature_map
Calls = Sequence[Callable[[Any, Tensor], Tensor]]  # how ours and the peer's model are called


def passes(
    title: str,
    peer: str,
    models: Sequence[Any],
    calls: Calls,
    batch: int,
    side: int,
    device: torch.device,
    *,
    equal: bool = True,
) -> Iterator[Case]:
    """Yield the forward pass in each precision, and a step by autocast with AdamW.

    Outputs must be the same, unless not `equal`, as with windows beside global attention.
    """

    def counted() -> nn.Module:
        model = copy.deepcopy(models[0]).to("meta")
        model.forward = partial(calls[0], model)
        return model

    flops = batch * forward_flops(counted, image_input(side))
    images = torch.randn(batch, 3, side, side, device=device)
    sides = [*zip(("ours", peer), models, calls, strict=True)]
    with torch.no_grad():
        ours, theirs = (call(model.to(device), images) for _, model, call in sides)
    if equal:
        require_same(title, theirs, ours)
    for kind in precisions(device):
        notes: Any = {"items": batch, "unit": "images", "precision": kind}
        ways: dict[str, Call] = {}
        for name, model, call in sides:
            cast = copy.deepcopy(model).requires_grad_(False).to(DTYPES[kind])
            cast.eval()  # mmsegmentation's returns nothing
            ways[name] = torch.no_grad()(partial(call, cast, images.to(DTYPES[kind])))
            del cast
        yield Case(f"{title}, forward, {kind}", ways, flops=flops, **notes)
        ways = {}
        for name, model, call in sides:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

            def loss(model: Any = model, call: Any = call) -> Tensor:
                return call(model, images).float().square().mean()

            ways[name] = plain_step(model, loss, optimizer, kind, device)
        yield Case(f"{title}, training step, {kind}", ways, flops=3 * flops, **notes)


def plain_step(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    optimizer: Any,
    kind: str,
    device: torch.device,
    clip_grad: float = 0.0,
) -> Call:
    """Build the step of a plain loop: autocast, scaled loss, clipped gradients."""
    scaler = torch.amp.GradScaler(device.type, enabled=kind == "fp16")
    model.train()

    def step() -> None:
        with torch.autocast(device.type, DTYPES[kind], enabled=kind != "fp32"):
            loss = loss_of()
        scaler.scale(loss).backward()
        if clip_grad:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        loss.item()

    return step


def timm_eva(cls: type[Eva], scale: Scale, **options: Any) -> Eva:
    """Build timm's EVA (or a class of it) of the sizes of ours, for 224 px."""
    ratio = (scale.mlp + 0.5) / scale.width  # timm rounds down
    return cls(
        img_size=SIDE,
        patch_size=14,
        mlp_ratio=ratio,
        num_classes=0,
        global_pool="",
        norm_layer=NORM,
        **scale.vit,
        **options,
    )


def encoder(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The plain ViT beside timm's EVA, 224 px, patches of 14."""
    ours = VisionTransformer(img_size=SIDE, patch_size=14, mlp_dim=scale.mlp, **scale.vit)
    models = with_our_weights(ours, timm_eva(Eva, scale))
    calls = VisionTransformer.forward_features, Eva.forward_features
    title, batch = f"encoder {scale.name} b{scale.batch}", scale.batch
    return passes(title, "timm", models, calls, batch, SIDE, device)


PLAIN_VITS = (  # title, ours, timm's
    ("EVA-02-B", "eva02_b14", "eva02_base_patch14_224"),
    ("DINOv3-B", "dinov3_b16", "vit_base_patch16_dinov3_qkvb"),
    ("PE-B", "pe_core_b16", "vit_pe_core_base_patch16_224"),
)


def plain_vits(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Other plain ViTs of size B beside timm's, at 224 px and the depth of the scale."""
    calls = (VisionTransformer.forward_features, Eva.forward_features)
    for title, variant, peer in PLAIN_VITS:
        models = _plain_vit(variant, peer, build_vit, min(scale.depth, 12), SIDE)
        yield from passes(title, "timm", models, calls, scale.batch, SIDE, device)


def plain_vitdet(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The same as trunks of detectors, with windows; timm's attend globally in all blocks."""
    depth, batch = min(scale.depth, 12), max(1, scale.batch // 4)

    def build(variant: str, depth: int, img_size: int) -> VisionTransformer:
        window = min(16, img_size // PATCH)
        arguments = detector_arguments(variant, img_size=img_size, window_size=window)
        last = tuple(range(min(3, depth - 1), depth, 4))
        return VisionTransformer(**arguments | {"depth": depth, "global_attn_indexes": last})

    for title, variant, peer in PLAIN_VITS:
        models = _plain_vit(variant, peer, build, depth, scale.side, patch_size=PATCH)
        name = f"{title} as ViTDet, d{depth} b{batch} {scale.side} px"
        calls: Calls = MAP, Eva.forward_features
        peers = "timm, global attention"
        yield from passes(name, peers, models, calls, batch, scale.side, device, equal=False)


def _plain_vit(
    variant: str,
    peer: str,
    build: Callable[..., VisionTransformer],
    depth: int,
    side: int,
    **options: Any,
) -> tuple[VisionTransformer, nn.Module]:
    sizes = {"depth": depth, "img_size": side, "num_classes": 0, "global_pool": ""}
    theirs = timm.create_model(peer, **sizes, **options)
    ours = build(variant, depth=depth, img_size=side)
    names = ours.state_dict()
    state = to_eva_names(theirs.state_dict())
    ours.load_state_dict(
        {k: v for k, v in state.items() if k in names and v.shape == names[k].shape}, strict=False
    )
    return ours, theirs


def vitdet_arguments(scale: Scale) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of our ViT and of detectron2's for detection; every fourth block is global."""
    window = min(16, scale.side // PATCH)
    both = scale.vit | {
        "img_size": scale.side,
        "patch_size": PATCH,
        "pretrain_img_size": SIDE,
        "window_size": window,
    }
    globally = [*range(min(3, scale.depth - 1), scale.depth, 4)]
    windows = [index for index in range(scale.depth) if index not in globally]
    ours = {
        "mlp_dim": 4 * scale.width,
        "qkv_bias": "qkv",
        "extra_tokens": (),
        "rel_pos": "vitdet",
        "final_norm": False,
        "global_attn_indexes": globally,
    }
    theirs = {"norm_layer": NORM, "use_rel_pos": True, "window_block_indexes": windows}
    return both | ours, both | theirs


def vitdet(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The backbone of detectors beside detectron2's ViT, with relative positions."""
    arguments, of_peer = vitdet_arguments(scale)
    models = with_our_weights(VisionTransformer(**arguments), ViT(**of_peer))
    calls: Calls = MAP, lambda model, images: model(images)["last_feat"]
    side, batch = scale.side, max(1, scale.batch // 4)
    title = f"ViTDet {scale.name} b{batch} {side} px"
    return passes(title, "detectron2", models, calls, batch, side, device)


def detector(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Cascade Mask R-CNN per image beside one of detectron2's own classes alone."""
    arguments, of_peer = vitdet_arguments(scale)
    config = LazyConfig.load(str(RECIPE)).model
    config.backbone.net = LazyCall(VisionTransformer)(**arguments)
    config.backbone.square_pad = scale.side
    proposals = 1000 if scale.side >= 1024 else 100
    config.proposal_generator.post_nms_topk = (2 * proposals, proposals)
    ours = instantiate(config)
    for predictor in ours.roi_heads.box_predictor:
        predictor.cls_score.weight.data *= 20  # random scores that reach the threshold
    config._target_, config.proposal_generator._target_ = GeneralizedRCNN, RPN
    config.roi_heads._target_ = CascadeROIHeads
    del config.backbone.freeze_patch_embed
    config.backbone.update(_target_=SimpleFeaturePyramid, in_feature="last_feat", norm="LN")
    config.backbone.net = LazyCall(ViT)(**of_peer)
    ours, peer = with_our_weights(ours, instantiate(config))
    image = torch.randint(0, 256, (3, scale.side, scale.side), dtype=torch.uint8)
    for kind in precisions(device):
        calls = {}
        for name, model in (("ours", ours), ("detectron2", peer)):
            lower_backbone(model.to(device).eval().backbone, kind, device)
            calls[name] = partial(_detect, model, image)
        if kind == "fp32":
            our_scores, peer_scores = (call().scores for call in calls.values())
            require_same("detector", peer_scores, our_scores)
        title = f"detector {scale.name} {scale.side} px, {proposals} proposals, {kind}"
        yield Case(title, calls, unit="images")


@torch.no_grad()
def _detect(model: nn.Module, image: Tensor) -> Any:
    inputs = {"image": image, "height": image.shape[1], "width": image.shape[2]}
    return model([inputs])[0]["instances"]


def segmentation(scale: Scale, device: torch.device) -> Iterator[Case]:
    """The ViT of segmentors with BEiT's bias tables beside mmsegmentation's BEiT.

    mmsegmentation has no ViT-Adapter, so neither side has it.
    """
    side, batch = scale.side // 2, max(1, scale.batch // 2)
    ours = VisionTransformer(
        img_size=side,
        patch_size=PATCH,
        mlp_dim=4 * scale.width,
        rel_pos="table",
        layer_scale=0.1,
        final_norm=False,
        **scale.vit,
    )
    with warnings.catch_warnings(action="ignore"):
        peer = BEiT(
            img_size=side,
            patch_size=PATCH,
            embed_dims=scale.width,
            num_layers=scale.depth,
            num_heads=scale.heads,
            mlp_ratio=4,
            norm_cfg={"type": "LN", "eps": 1e-6},
        )
    assert ours.pos_embed is not None
    ours.pos_embed.requires_grad_(False).zero_()  # the peer has none

    def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        del weights["pos_embed"]
        for pattern, name in MMSEG.items():
            weights = {re.sub(pattern, name, key): value for key, value in weights.items()}
        return peer.state_dict() | weights  # and its indexes

    models = with_our_weights(ours, peer, renamed)
    calls: Calls = MAP, lambda model, images: model(images)[0]
    title = f"segmentation, BEiT {scale.name} b{batch} {side} px"
    return passes(title, "mmsegmentation", models, calls, batch, side, device)


def mask_heads(scale: Scale, device: torch.device) -> Iterator[Case]:
    """EoMT beside ViT-Adapter and Mask2Former, on EVA-B with the heads of their recipes at 512 px.

    They compute different things, in evaluation (EoMT without masks) and in a training step.
    """
    init_default_scope("mmseg")
    side = 512 if scale.items > 6 else 64
    sizes = vit("eva_b_patch16", img_size=side, drop_path_rate=0.0, activation_checkpointing=False)
    images, width = torch.randn(1, 3, side, side, device=device), sizes["embed_dim"]
    models = dict[str, Any]()
    for name, recipe in (("ours", "eomt_eva_l_512"), ("ViT-Adapter, Mask2Former", MASK2FORMER)):
        cfg = Config.fromfile(str(SEGMENTORS / f"{recipe}.py"))
        head = dict(in_channels=width if name == "ours" else [width] * 4)
        cfg.merge_from_dict(dict(model=dict(backbone=sizes, decode_head=head)))
        models[name] = revert_sync_batchnorm(MODELS.build(cfg.model)).to(device).eval()
    models["ours"].backbone.mask_probability.zero_()
    title, shapes = f"masks, EVA-B {side} px", [dict(img_shape=(side, side))]
    calls: dict[str, Call] = {
        name: torch.no_grad()(partial(model.encode_decode, images, shapes))
        for name, model in models.items()
    }
    yield Case(f"{title}, forward, fp32", calls, unit="images")
    for name, model in models.items():
        samples = [planning.sample(model, side).to(device)]

        def loss(model: Any = model, samples: Any = samples) -> Tensor:
            total: Tensor = model.parse_losses(model(images, samples, mode="loss"))[0]
            return total

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        calls[name] = plain_step(model, loss, optimizer, "fp32", device)
    yield Case(f"{title}, training step, fp32", calls, unit="images")
