"""The other plain ViTs beside timm, transformers and, with windows, the public code of each."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from eva_backbone import VisionTransformer, build_vit, load_pretrained, load_vit
from eva_backbone.checkpoints.families import find_variant, to_eva_names
from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.layer_decay import layer_index
from eva_backbone.lora import LoraSettings, add_adapters
from eva_backbone.recording import quiet
from eva_backbone.variants import (
    FAMILIES,
    VARIANTS,
    dense_arguments,
    detector_arguments,
    variant_arguments,
)

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
GOLDEN = Path(__file__).parents[1] / "golden"

# ours, timm's, timm's arguments; sides of ours in patches
PAIRS = [
    ("eva02_ti14", "eva02_tiny_patch14_224", {}),
    ("eva02_b14", "eva02_base_patch14_224", {}),
    ("eva02_l14", "eva02_large_patch14_448", {}),
    ("eva02_clip_l14", "eva02_large_patch14_clip_224", {}),
    ("dinov2_s14", "vit_small_patch14_dinov2", {}),
    ("dinov2_g14", "vit_giant_patch14_dinov2", {}),
    ("dinov2_s14_reg", "vit_small_patch14_reg4_dinov2", {}),
    ("dinov3_s16", "vit_small_patch16_dinov3_qkvb", {}),
    ("dinov3_s16plus", "vit_small_plus_patch16_dinov3_qkvb", {}),
    ("dinov3_7b16", "vit_7b_patch16_dinov3", {}),
    ("pe_core_b16", "vit_pe_core_base_patch16_224", {"ref_feat_shape": (8, 8)}),
    ("pe_core_g14", "vit_pe_core_gigantic_patch14_448", {"ref_feat_shape": (8, 8)}),
    ("pe_spatial_g14", "vit_pe_spatial_gigantic_patch14_448", {"ref_feat_shape": (8, 8)}),
    ("pe_lang_l14", "vit_pe_lang_large_patch14_448", {"ref_feat_shape": (8, 8)}),
    ("siglip2_b16", "vit_base_patch16_siglip_256", {"act_layer": "gelu_tanh"}),
    ("siglip2_g16", "vit_giantopt_patch16_siglip_384", {}),
    ("tipsv2_b14", "vit_base_patch14_reg1_tipsv2", {}),
    ("radio_v3_b16", "vit_base_patch16_radio_v3", {}),
    ("aimv2_l14", "aimv2_large_patch14_224", {}),
    ("aimv2_3b14", "aimv2_3b_patch14_224", {}),
]
SIDE = 8  # of the maps that tests begin with, in patches


def _randomise(model):
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif "gamma" in name or "lambda" in name:
            torch.nn.init.uniform_(parameter, 0.1, 1.0)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def _small(name):
    """Arguments of a ViT of two blocks and two heads, of the width of a variant's heads."""
    full = variant_arguments(name)
    width = full["embed_dim"] // full["num_heads"] * 2
    sizes = {"depth": 2, "num_heads": 2, "embed_dim": width}
    return sizes | {"img_size": SIDE * full["patch_size"]}


@pytest.mark.parametrize(("name", "timm_name", "timm_arguments"), PAIRS, ids=lambda p: str(p)[:20])
def test_forward_beside_timm(name, timm_name, timm_arguments):
    sizes = _small(name)
    theirs = timm.create_model(
        timm_name,
        num_classes=0,
        dynamic_img_size=True,
        global_pool="",
        **sizes,
        **timm_arguments,
    )
    state = to_eva_names(_randomise(theirs).state_dict())
    hidden = len(state.get("blocks.0.mlp.w1.weight", state.get("blocks.0.mlp.fc1.weight")))
    if variant_arguments(name).get("positions") != "none":
        sizes["positions"] = "bicubic_antialias"  # timm has one way for all
    if "ref_feat_shape" in timm_arguments:  # timm stretches at other sizes
        sizes["rotary"] = variant_arguments(name)["rotary"] | {"reference": float(SIDE)}
    ours = build_vit(name, **sizes | {"pretrain_img_size": sizes["img_size"]}, mlp_dim=hidden)
    ours.eval()
    missing = ours.load_state_dict(state, strict=False).missing_keys
    assert missing in ([], ["rope_embed.periods"])
    patch = ours.patch_size
    for rows, columns in ((SIDE, SIDE), (SIDE + 3, SIDE - 1)):
        images = torch.randn(2, 3, rows * patch, columns * patch)
        expected = theirs.forward_features(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours.forward_features(images), expected, **TOLERANCE)


def _transformers_model(kind, **more):
    config = getattr(transformers, f"{kind}Config")
    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96)
    return _randomise(getattr(transformers, f"{kind}Model")(config(**sizes | more)))


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("dinov3_b16", "DINOv3ViT", {"image_size": 128, "num_register_tokens": 4}),
        (
            "dinov3_s16plus",
            "DINOv3ViT",
            {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
        ),
        ("dinov2_s14", "Dinov2", {"image_size": 112, "mlp_ratio": 4}),
        ("dinov2_g14", "Dinov2", {"image_size": 112, "use_swiglu_ffn": True}),
        ("dinov2_s14_reg", "Dinov2WithRegisters", {"image_size": 112, "patch_size": 14}),
        ("siglip2_b16", "SiglipVision", {"image_size": 128, "patch_size": 16}),
        ("aimv2_l14", "Aimv2Vision", {"image_size": 112, "rms_norm_eps": 1e-5, "use_head": False}),
    ],
    ids=str,
)
def test_forward_beside_transformers(name, kind, more):
    theirs = _transformers_model(kind, **more)
    state = to_eva_names(theirs.state_dict())
    hidden = len(state.get("blocks.0.mlp.w1.weight", state.get("blocks.0.mlp.fc1.weight")))
    sizes = dict(embed_dim=64, depth=2, num_heads=2, mlp_dim=hidden)
    side = SIDE * variant_arguments(name)["patch_size"]
    ours = build_vit(name, img_size=side, **sizes).eval()
    known = {key: value for key, value in state.items() if key in ours.state_dict()}
    assert ours.load_state_dict(known, strict=False).missing_keys in ([], ["rope_embed.periods"])
    images = torch.randn(2, 3, side, side)
    expected = theirs(images).last_hidden_state
    torch.testing.assert_close(ours.forward_features(images), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("file", "family"), [("eva02_det", "eva02"), ("pe_det", "pe_spatial"), ("sam3_trunk", "sam3")]
)
def test_windows_beside_public_code(file, family):
    path = GOLDEN / f"{file}.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as content:
        sizes = json.loads(content.metadata()["sizes"])
    arguments = dict(FAMILIES[family].arguments) | {"extra_tokens": (), "final_norm": False}
    reference = sizes.pop("reference", None)
    if reference:
        arguments["rotary"] = arguments["rotary"] | {"reference": float(reference)}
    bias, scale = ("qv", None) if family == "eva02" else ("qkv", None)
    if family == "pe_spatial":
        scale, arguments["positions"] = 0.1, "tile"
    model = VisionTransformer(**arguments | sizes, qkv_bias=bias, layer_scale=scale).eval()
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    result = model.load_state_dict(to_eva_names(state), strict=False)
    assert result.missing_keys == ["rope_embed.periods"]
    assert not result.unexpected_keys
    for key in (key for key in tensors if key.startswith("input.")):
        expected = tensors[key.replace("input.images", "output.last_feat")]
        torch.testing.assert_close(model.forward_feature_map(tensors[key]), expected, **TOLERANCE)


DEBUG = [name for name in VARIANTS if name.endswith("debug") and name != "eva_debug"]
QUICK = ("eva02_debug", "dinov3_debug", "siglip2_debug")  # what the others have, one has each
FEW = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in DEBUG]


@pytest.mark.parametrize("name", FEW)
def test_checkpointing_keeps_gradients(name):
    images, gradients = torch.randn(2, 3, 128, 128), []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build_vit(name, activation_checkpointing=recompute)
        model.train()(images).square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradients[1][key], gradient, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", FEW)
def test_adapters_start_as_nothing_and_leave_tokens_frozen(name):
    model = build_vit(name).eval()
    images = torch.randn(1, 3, 128, 128)
    before = model(images)
    add_adapters(model, LoraSettings(rank=2))
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not [n for n in trained if "token" in n or "norm_pre" in n or "pos_embed" in n]
    assert any("mlp" in n for n in trained)
    assert all(
        layer_index(n, 4) == 0 for n in model.state_dict() if "token" in n or "norm_pre" in n
    )


@pytest.mark.parametrize("name", DEBUG)
def test_a_file_is_recognised_and_loaded_whole(name, tmp_path):
    from safetensors.torch import save_file

    model = _randomise(build_vit(name))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_vit(tmp_path / "weights.safetensors")
    images = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["eva02_debug", "dinov3_debug"])
def test_sharded_blocks_compute_the_same(name):
    """FSDP2: all parameters are sharded, and what the blocks share is not."""
    begins = not torch.distributed.is_initialized()  # by another test of this process
    if begins:
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    try:
        torch.manual_seed(0)
        whole, sharded = build_vit(name), build_vit(name)
        sharded.load_state_dict(whole.state_dict())
        for part in (*sharded.blocks, sharded):
            fully_shard(part, mesh=init_device_mesh("cpu", (1,)))
        images = torch.randn(2, 3, 128, 128)
        for model in (whole, sharded):
            model(images).square().mean().backward()
        for ours, expected in zip(sharded.parameters(), whole.parameters(), strict=True):
            assert isinstance(ours, DTensor)
            torch.testing.assert_close(ours.grad.full_tensor(), expected.grad, rtol=0, atol=0)
    finally:
        if begins:
            torch.distributed.destroy_process_group()


def test_copies_of_prefix_tokens_under_windows():
    """One window as large as the map is global attention."""
    torch.manual_seed(0)
    sizes = dict(img_size=64, pretrain_img_size=64)
    whole = _randomise(build_vit("dinov3_debug", **sizes))
    windows = build_vit("dinov3_debug", window_size=8, **sizes).eval()
    windows.load_state_dict(whole.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(windows(images), whole(images), **TOLERANCE)
    assert windows(torch.randn(1, 3, 96, 80)).shape == (1, 5 + 120, 128)


@pytest.mark.parametrize("name", FEW)
def test_a_trace_holds_for_all_sizes(name):
    sizes = dict(img_size=128, window_size=4, prefix_tokens="keep")
    model = VisionTransformer(**detector_arguments(name, **sizes)).eval()
    model.requires_grad_(False)
    images = torch.randn(1, 3, 128, 128), torch.randn(1, 3, 96, 160)
    by_matrices = ("bicubic_offset", "bicubic_antialias")  # which ONNX can hold
    rounding = 1e-5 if model.positions in by_matrices else 0
    with quiet():
        traced = torch.jit.trace(model, images[0], check_trace=False)
    for batch in images:
        torch.testing.assert_close(traced(batch), model(batch), rtol=0, atol=rounding)


def test_periods_of_a_file_are_loaded_and_stay_float32():
    model = build_vit("dinov3_debug")
    state = model.state_dict()
    rounded = state["rope_embed.periods"].bfloat16().float()
    load_pretrained_state = state | {"rope_embed.periods": rounded}
    model.load_state_dict(load_pretrained_state)
    half = model.half()
    assert half.rope_embed.periods.dtype == torch.float32
    assert torch.equal(half.rope_embed.periods, rounded)


def test_weights_of_another_family_are_refused_with_both_forms():
    model = build_vit("dinov3_debug", depth=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="registers, no absolute positions, layer scale"):
        load_pretrained(model, "eva_debug")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("variant", ["eva_b_patch16", "eva_l_patch16"])
def test_a_classifier_of_eva_is_no_other_family(variant):
    with torch.device("meta"):
        state = build_vit(variant, final_norm=False).state_dict()
        state["head.weight"] = torch.empty(10, state["pos_embed"].shape[-1])
    assert find_variant(state) is None


@pytest.mark.parametrize(("name", "side"), [("dinov3_debug", 128), ("eva02_debug", 160)])
def test_the_windows_of_a_detector_are_asked_for(tmp_path, name, side):
    """The size of the images is that of the positions, or of the variant, unless it is named."""
    from safetensors.torch import save_file

    arguments = detector_arguments(name, img_size=192, window_size=4) | {"pretrain_img_size": side}
    model = _randomise(VisionTransformer(**arguments))
    state = {f"backbone.net.{name}": value for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "detector.safetensors")
    with pytest.raises(ValueError, match="window_size"):
        load_vit(tmp_path / "detector.safetensors")
    windows = {key: arguments[key] for key in ("window_size", "global_attn_indexes")}
    images = torch.randn(1, 3, 192, 160)
    for size, sizes in ((side, {}), (192, {"img_size": 192})):
        loaded = load_vit(tmp_path / "detector.safetensors", **windows, **sizes)
        assert loaded.img_size == size
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("arguments_of", [dense_arguments, detector_arguments])
@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if v.patch_size == 14])
def test_patches_that_became_16_leave_a_variant_what_it_is(name, arguments_of):
    variant = VARIANTS[name]
    sizes = {"img_size": 512} if arguments_of is detector_arguments else {}
    if variant.family == "eva" or name == "sam3":
        return  # the first has tables, the last no patches of 16
    with torch.device("meta"):
        state = VisionTransformer(**arguments_of(name, **sizes)).state_dict()
    found = find_variant(state)
    assert found is not None
    same = ("embed_dim", "depth", "num_heads", "mlp_dim", "qkv_bias")
    assert [getattr(VARIANTS[found], key) for key in same] == [
        getattr(variant, key) for key in same
    ]
    trunk = describe(Weights(name, state))
    assert trunk.arguments["patch_size"] == 16


@pytest.mark.parametrize(
    ("name", "sizes", "named"),
    [
        ("dinov3_debug", {"depth": 5}, ("width 128", "depth 5", "4 heads", "dinov3_debug")),
        ("eva02_debug", {"mlp_dim": 300}, ("width 128", "depth 4", "eva02_debug")),
        ("eva_debug", {"embed_dim": 96}, ("width 96", "depth 5", "eva_debug", "num_heads")),
    ],
)
def test_sizes_of_no_variant_are_named_with_close_ones(name, sizes, named):
    with pytest.raises(ValueError, match=r".*".join(named)):
        load_vit(Weights("mine.pth", build_vit(name, **sizes).state_dict()))


def test_files_of_radio_and_biases_that_timm_leaves_out():
    width = 32
    kernel = torch.randn(width, 3 * 16 * 16)
    names = {
        "radio_model.model.patch_generator.embedder.weight": kernel,
        "radio_model.model.patch_generator.pos_embed": torch.randn(1, 16, width),
        "radio_model.model.patch_generator.cls_token.token": torch.randn(8, width),
        "radio_model.model.blocks.0.attn.proj.weight": torch.randn(width, width),
    }
    renamed = {k.removeprefix("radio_model.model."): v for k, v in to_eva_names(names).items()}
    assert renamed["register_tokens"].shape == (1, 7, width)
    assert renamed["pos_embed"].shape == (1, 17, width)
    assert torch.equal(renamed["patch_embed.proj.weight"].flatten(1), kernel)
    theirs = timm.create_model("vit_small_patch16_dinov3", depth=1, num_classes=0)
    ours = build_vit("dinov3_s16", depth=1)
    assert to_eva_names(theirs.state_dict()).keys() | {"rope_embed.periods"} == {*ours.state_dict()}


@pytest.mark.parametrize("more", [{"rel_pos": "table"}, {"attn_norm": True, "rotary": None}])
def test_arguments_that_would_do_nothing(more):
    with pytest.raises(ValueError, match="rotary"):
        build_vit("eva02_debug", **more)


def test_patch_14_weights_are_resampled_to_16(tmp_path):
    from safetensors.torch import save_file

    sizes = dict(embed_dim=64, depth=2, num_heads=2, mlp_dim=96)
    source = build_vit("dinov2_s14", img_size=112, **sizes)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = build_vit("dinov2_s14", patch_size=16, img_size=128, **sizes)
    report = load_pretrained(target, tmp_path / "w.safetensors", complete=True)
    assert [*report.resampled] == ["patch_embed.proj.weight"]
