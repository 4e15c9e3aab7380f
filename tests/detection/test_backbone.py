"""EVAViTDet: official names, golden outputs, detectron2's own pyramid, and how it is built."""

from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.modeling import GeneralizedRCNN, build_backbone
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone import vit as stock
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from eva_backbone import VisionTransformer
from eva_detection.model.backbone import EVAViTDet, add_eva_config

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NET = {
    "img_size": 96,
    "patch_size": 16,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "mlp_dim": 80,
    "pretrain_img_size": 64,
    "extra_tokens": (),
    "final_norm": False,
    "window_size": 4,
    "global_attn_indexes": (3,),
    "rel_pos": "vitdet",
}
LEVELS = ["p2", "p3", "p4", "p5", "p6"]


def _backbone(*, net=(), top_block=True, **options):
    return EVAViTDet(
        net=VisionTransformer(**NET | dict(net)),
        out_channels=24,
        top_block=LastLevelMaxPool() if top_block else None,
        **options,
    )


class NoProposals(nn.Module):
    """Stands where only the preparation of images is tested."""

    def forward(self, *inputs):
        raise AssertionError


def _detector(backbone):
    return GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=NoProposals(),
        roi_heads=NoProposals(),
        pixel_mean=(100.0, 110.0, 120.0),
        pixel_std=(50.0, 60.0, 70.0),
    )


@pytest.mark.parametrize(
    ("name", "rel_pos"),
    [
        ("norelpos", "none"),
        ("relpos", "vitdet"),
        ("relpos_160", "vitdet"),
        ("relpos_interp_beit", "beit"),
        ("relpos_interp_beit_160", "beit"),
    ],
)
def test_golden_pyramid(name, rel_pos):
    tensors = load_file(GOLDEN / f"detection_{name}.safetensors")
    state = {k.removeprefix("state."): t for k, t in tensors.items() if k.startswith("state.")}
    backbone = _backbone(net={"rel_pos": rel_pos}).eval()
    backbone.load_state_dict(state, strict=True)
    levels = backbone(tensors["input.image"])
    assert list(levels) == LEVELS
    for level, actual in levels.items():
        expected = tensors[f"output.{level}"]
        assert expected.std() > 1e-2
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def _stock_state(tensors):
    """Our names to detectron2's: q_bias and v_bias with a key bias of zero between them."""
    mapped = {}
    for name, value in tensors.items():
        if name.endswith(".q_bias"):
            parts = [value, torch.zeros_like(value), tensors[name.replace("q_bias", "v_bias")]]
            mapped[name.replace("q_bias", "qkv.bias")] = torch.cat(parts)
        elif not name.endswith(".v_bias"):
            mapped[name] = value
    return mapped


def _stock_backbone():
    net = stock.ViT(
        img_size=96,
        patch_size=16,
        embed_dim=32,
        depth=4,
        num_heads=2,
        mlp_ratio=80 / 32,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=4,
        window_block_indexes=(0, 1, 2),
        pretrain_img_size=64,
    )
    return stock.SimpleFeaturePyramid(
        net,
        in_feature="last_feat",
        out_channels=24,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        square_pad=128,
    )


@pytest.mark.parametrize("size", [(96, 96), (128, 160)])
def test_parity_with_stock_pyramid(randomise, size):
    ours, theirs = randomise(_backbone(square_pad=128)), _stock_backbone()
    theirs.load_state_dict(_stock_state(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, *size)
    mine, expected = ours(images), theirs(images)
    assert list(mine) == list(expected)
    for level, value in expected.items():
        assert value.std() > 0.1
        torch.testing.assert_close(mine[level], value, atol=2e-5, rtol=1e-4)

    weights = {level: torch.randn_like(value) for level, value in expected.items()}
    for levels in (mine, expected):
        sum((levels[level] * weight).sum() for level, weight in weights.items()).backward()
    gradients = _stock_state({name: p.grad for name, p in ours.named_parameters()})
    assert gradients.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 1e-3, name
        torch.testing.assert_close(
            gradients[name] / scale, parameter.grad / scale, atol=2e-5, rtol=1e-4
        )


def test_output_shape_is_what_comes_out():
    backbone = _backbone()
    assert isinstance(backbone, Backbone)
    shapes = backbone.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == dict(
        zip(LEVELS, (4, 8, 16, 32, 64), strict=True)
    )
    assert shapes == _stock_backbone().output_shape()
    for name, level in backbone(torch.zeros(1, 3, 128, 192)).items():
        stride = shapes[name].stride
        assert level.shape == (1, shapes[name].channels, 128 // stride, 192 // stride)


def test_output_shape_without_top_block():
    sizes = {"patch_size": 8, "img_size": 64}
    backbone = _backbone(net=sizes, top_block=False, scale_factors=(2.0, 1.0, 0.5))
    shapes = backbone.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {"p2": 4, "p3": 8, "p4": 16}
    assert list(backbone(torch.zeros(1, 3, 64, 64))) == ["p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("square_pad", "padded"),
    [(0, (128, 96)), (160, (160, 160))],
)
def test_batch_of_unequal_sizes_is_padded(square_pad, padded):
    model = _detector(_backbone(square_pad=square_pad))
    white = [{"image": torch.full((3, *size), 255.0)} for size in ((97, 40), (50, 90))]
    images = model.preprocess_image(white)
    assert images.tensor.shape == (2, 3, *padded)
    assert images.image_sizes == [(97, 40), (50, 90)]
    bright = (255 - torch.tensor([100.0, 110.0, 120.0])) / torch.tensor([50.0, 60.0, 70.0])
    for tensor, (height, width) in zip(images.tensor, images.image_sizes, strict=True):
        torch.testing.assert_close(tensor[:, height - 1, width - 1], bright)
        assert not tensor[:, height:].any()
        assert not tensor[:, :, width:].any()
    levels = model.backbone(images.tensor)
    assert levels["p5"].shape[2:] == (padded[0] // 32, padded[1] // 32)


def test_freezing_the_patch_embedding_freezes_nothing_else():
    backbone = _backbone(freeze_patch_embed=True)
    backbone(torch.randn(1, 3, 96, 96))["p6"].sum().backward()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"net.patch_embed.proj.weight", "net.patch_embed.proj.bias"}
    assert backbone.net.patch_embed.proj.weight.grad is None
    assert backbone.net.pos_embed.grad is not None
    assert all(p.requires_grad for p in _backbone().parameters())


def test_patch_14_is_refused():
    with pytest.raises(ValueError, match=r"patch size 14 .* stride 3\.5, .* power of two.* to 16"):
        _backbone(net={"patch_size": 14, "img_size": 98, "pretrain_img_size": 56})


def test_sizes_that_the_patch_does_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"100"):
        _backbone()(torch.zeros(1, 3, 100, 96))


def test_lazy_config_round_trip(tmp_path):
    node = LazyCall(EVAViTDet)(
        net=LazyCall(VisionTransformer)(**NET),
        out_channels=24,
        top_block=LazyCall(LastLevelMaxPool)(),
        square_pad=96,
    )
    file = tmp_path / "backbone.yaml"
    LazyConfig.save(OmegaConf.create({"backbone": node}, flags={"allow_objects": True}), str(file))
    torch.manual_seed(1)
    expected = instantiate(node)
    torch.manual_seed(1)
    backbone = instantiate(LazyConfig.load(str(file)).backbone)
    images = torch.randn(1, 3, 96, 96)
    for level, value in expected(images).items():
        assert torch.equal(backbone(images)[level], value)


def test_built_by_name_from_yacs():
    cfg = get_cfg()
    add_eva_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "EVAViTDet"
    cfg.merge_from_list(
        [
            *("MODEL.EVA.VARIANT", "eva_ti_patch16"),
            *("MODEL.EVA.IMG_SIZE", 128),
            *("MODEL.EVA.WINDOW_SIZE", 4),
            *("MODEL.EVA.GLOBAL_ATTN_INDEXES", [5, 11]),
            *("MODEL.EVA.OUT_CHANNELS", 24),
            *("MODEL.EVA.SQUARE_PAD", 128),
            *("MODEL.EVA.DROP_PATH_RATE", 0.1),
        ]
    )
    backbone = build_backbone(cfg)
    assert isinstance(backbone, EVAViTDet)
    assert backbone.padding_constraints == {"size_divisibility": 32, "square_size": 128}
    assert backbone.net.global_attn_indexes == (5, 11)
    assert backbone.net.activation_checkpointing
    assert not backbone.net.patch_embed.proj.weight.requires_grad
    assert backbone.net.blocks[0].attn.rel_pos_h.shape[0] == 7
    assert backbone.net.blocks[5].attn.rel_pos_h.shape[0] == 15
    levels = backbone(torch.zeros(1, 3, 128, 128))
    assert list(levels) == LEVELS
    assert levels["p2"].shape == (1, 24, 32, 32)


def test_yacs_defaults_are_the_coco_recipe(load_config):
    """The same backbone from yacs and from the LazyConfig, down to every name and shape."""
    cfg = get_cfg()
    add_eva_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "EVAViTDet"
    recipe = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1280")
    with torch.device("meta"):
        by_name, lazy = build_backbone(cfg), instantiate(recipe.model.backbone)
    shapes = [
        {name: (tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()}
        for model in (by_name, lazy)
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 635
    assert by_name.padding_constraints == lazy.padding_constraints
    assert by_name.output_shape() == lazy.output_shape()
    for model in (by_name, lazy):
        assert model.net.blocks[-1].drop_path.rate == 0.6
        assert model.net.activation_checkpointing
