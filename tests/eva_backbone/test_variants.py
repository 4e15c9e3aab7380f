"""The table of sizes, against the parameter counts that the official logs print."""

import pytest
import torch
from torch import nn

import eva_backbone
from eva_backbone import VARIANTS, SimpleFeaturePyramid, VisionTransformer, build_vit
from eva_backbone.variants import variant_arguments


@pytest.fixture(autouse=True)
def _meta():
    with torch.device("meta"):
        yield


def test_masked_image_modelling(count):
    """EVA-g with class and mask token, `norm` and the head of CLIP-B's 768 channels."""
    model = eva_backbone.eva_g_patch14(extra_tokens=("cls", "mask"))
    model.lm_head = nn.Linear(1408, 768)
    assert count(model) == 1_012_229_632
    assert count(model.blocks[0]) == 25_248_768
    assert len(model.blocks) == 40


@pytest.mark.parametrize(
    ("variant", "pixels", "classes", "parameters"),
    [
        ("eva_g_patch14", 224, 21841, 1_041_920_081),
        ("eva_g_patch14", 224, 1000, 1_012_555_112),
        ("eva_g_patch14", 336, 1000, 1_013_005_672),
        ("eva_g_patch14", 560, 1000, 1_014_447_464),
        ("eva_l_patch14", 196, 1000, 304_142_312),
        ("eva_l_patch14", 336, 1000, 304_531_432),
        ("eva_l_patch14", 224, 21841, 325_565_777),
    ],
)
def test_classifiers(count, variant, pixels, classes, parameters):
    """Mean pooling: no `norm`, but `fc_norm` and a head."""
    model = build_vit(variant, img_size=pixels, final_norm=False)
    model.fc_norm = nn.LayerNorm(model.embed_dim)
    model.head = nn.Linear(model.embed_dim, classes)
    assert count(model) == parameters


def test_patch_16_without_head(count):
    assert count(eva_backbone.eva_g_patch16()) == 1_011_315_072


def test_linear_probe(count):
    assert count(nn.Linear(VARIANTS["eva_g_patch14"].embed_dim, 1000)) == 1_409_000


def test_eva_l_pretraining(count):
    """EVA-L's MAE-style model with four decoder blocks; its sine positions are not trained."""

    def trained(name):
        return not name.startswith("pos_embed")

    def trained_in_decoder(name):
        return trained(name) and not name.startswith("patch_embed")

    decoder = VisionTransformer(
        embed_dim=512, depth=4, mlp_dim=2048, qkv_bias="qkv", extra_tokens=("mask",)
    )
    decoder_embed, prediction = nn.Linear(1024, 512), nn.Linear(512, 1024)
    assert (
        count(eva_backbone.eva_l_patch14(), trained)
        + count(decoder, trained_in_decoder)
        + count(decoder_embed)
        + count(prediction)
    ) == 316_576_768


def test_detector(count):
    """ViTDet with EVA-g at 1280 px: ViT and pyramid of the official COCO model."""
    model = eva_backbone.eva_g_patch16(
        img_size=1280,
        pretrain_img_size=224,
        window_size=16,
        global_attn_indexes=range(3, 40, 4),
        rel_pos="vitdet",
        extra_tokens=(),
        final_norm=False,
    )
    assert count(model) == 1_011_754_368
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["pos_embed"] == (1, 197, 1408)
    assert shapes["blocks.2.attn.rel_pos_h"] == (31, 88)
    assert shapes["blocks.3.attn.rel_pos_w"] == (159, 88)
    assert count(SimpleFeaturePyramid(in_channels=1408)) == 12_278_880


def test_segmentation_backbone():
    """The official adapter's ViT with relative positions: BEiT's table at 896 px."""
    model = eva_backbone.eva_g_patch16(
        img_size=896, rel_pos="table", layer_scale=1e-6, final_norm=False
    )
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["pos_embed"] == (1, 3137, 1408)
    assert shapes["blocks.0.attn.relative_position_bias_table"] == (12324, 16)
    assert shapes["blocks.0.gamma_1"] == (1408,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_factory_builds_its_row_on_meta(variant):
    model = getattr(eva_backbone, variant)(drop_path_rate=0.4)
    row = VARIANTS[variant]
    assert all(p.is_meta for p in model.parameters())
    assert model.patch_embed.proj.weight.shape == (row.embed_dim, 3, row.patch_size, row.patch_size)
    assert model.pos_embed.shape[1] == 1 + (row.img_size // row.patch_size) ** 2
    assert len(model.blocks) == row.depth
    assert model.blocks[0].mlp.fc1.out_features == row.mlp_dim
    assert model.blocks[0].attn.num_heads == row.num_heads
    assert (model.blocks[0].attn.qkv.bias is not None) == (row.qkv_bias == "qkv")
    assert model.blocks[-1].drop_path.rate == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("eva_b_patch16", 86), ("eva_s_patch16", 22), ("eva_ti_patch16", 5.5), ("eva_debug", 1.05)],
)
def test_small_variants_have_the_size_that_they_claim(count, variant, millions):
    assert count(build_vit(variant)) / 1e6 == pytest.approx(millions, rel=0.03)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown variant 'eva_x'; choose one of eva_g_patch14, "):
        build_vit("eva_x")
    with pytest.raises(TypeError, match="mlp_ratio"):
        build_vit("eva_debug", mlp_ratio=4)


def test_arguments_are_a_copy():
    variant_arguments("eva_debug")["depth"] = 99
    assert variant_arguments("eva_debug")["depth"] == VARIANTS["eva_debug"].depth == 5
