"""The ViT that a file holds: every official form, read off names and shapes alone."""

import ast
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone import VARIANTS, VisionTransformer, build_vit, load_vit
from eva_backbone.checkpoints.from_weights import describe, vit_from

GOLDEN = Path(__file__).parents[1] / "golden"
G16 = {"patch_size": 16, "embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_dim": 6144}


def official(name):
    """Names and meta tensors of an official file's list."""
    lines = (GOLDEN / "keys" / f"{name}.txt").read_text().splitlines()
    entries = (line.split("\t") for line in lines)
    return {
        key: torch.empty(ast.literal_eval(shape), device="meta")
        for key, shape in entries
        if not key.startswith("pixel_")
    }


def like(variant, *, img_size, **options):
    """Meta tensors of a ViT of a variant, with heads of other tasks."""
    with torch.device("meta"):
        model = build_vit(variant, img_size=img_size, **options)
    return dict(model.state_dict())


def meta(*shape):
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize("name", ["detection_o365", "detection_coco", "detection_lvis"])
def test_official_detectors(name):
    trunk = describe(official(name), name=name)
    assert trunk.arguments == G16 | {
        "img_size": 1280, "pretrain_img_size": 224, "qkv_bias": "qv", "extra_tokens": (),
        "layer_scale": None, "final_norm": False, "rel_pos": "beit", "window_size": 16,
        "global_attn_indexes": tuple(range(3, 40, 4)),
    }  # fmt: skip
    assert trunk.dense
    assert trunk.pools_patches
    assert describe(official(name), name=name).frames == 1


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("segmentation_ade20k", {"layer_scale": None}),
        ("segmentation_coco_stuff164k", {"layer_scale": None}),
        ("segmentation_ade20k_relpos", {"layer_scale": 1.0, "rel_pos": "table"}),
        ("segmentation_coco_stuff164k_relpos", {"layer_scale": 1.0, "rel_pos": "table"}),
    ],
)
def test_official_segmentors(name, more):
    trunk = describe(official(name), name=name)
    common = {"img_size": 896, "qkv_bias": "qv", "extra_tokens": ("cls",), "final_norm": False}
    assert trunk.arguments == G16 | common | more
    assert trunk.dense
    assert trunk.pools_patches


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_recognised(variant):
    facts = VARIANTS[variant]
    state = like(variant, img_size=facts.img_size)
    trunk = describe(state, name="file.pt")
    assert trunk.arguments.pop("final_norm")
    assert trunk.arguments.pop("extra_tokens") == ("cls",)
    assert trunk.arguments.pop("layer_scale") is None
    assert trunk.arguments == vars(facts)
    assert not trunk.dense
    assert not trunk.pools_patches


@pytest.mark.parametrize(
    ("variant", "side", "options", "more", "pools"),
    [
        # masked images: norm, lm_head and mask token
        ("eva_g_patch14", 224, {"extra_tokens": ("cls", "mask")}, {"lm_head.weight": (768, 1408)},
         True),
        ("eva_l_patch14", 224, {}, {"mask_token": (1, 1, 512), "decoder_pred.bias": (1024,)}, True),
        # classifiers: mean and fc_norm, or a probe of the class token
        ("eva_g_patch14", 560, {"final_norm": False},
         {"fc_norm.weight": (1408,), "head.weight": (1000, 1408)}, True),
        ("eva_g_patch14", 336, {}, {"head.0.running_mean": (1408,), "head.1.weight": (1000, 1408)},
         False),
        # the vision tower of CLIP
        ("eva_g_patch14", 224, {}, {"head.weight": (1024, 1408), "head.bias": (1024,)}, False),
    ],
)  # fmt: skip
def test_other_tasks_of_the_official_release(variant, side, options, more, pools):
    state = like(variant, img_size=side, **options)
    state |= {name: meta(*shape) for name, shape in more.items()}
    for prefix in ("", "visual."):
        named = {prefix + name: value for name, value in state.items()}
        trunk = describe(named, name="file.pt")
        assert trunk.arguments["img_size"] == side
        assert trunk.arguments["patch_size"] == VARIANTS[variant].patch_size
        assert trunk.pools_patches is pools
        assert not trunk.dense


@pytest.mark.parametrize("frames", [8, 16])
def test_official_video_models(frames):
    state = like("eva_g_patch14", img_size=224, final_norm=False)
    state |= {
        "patch_embed.proj.weight": meta(1408, 3, 1, 14, 14),
        "pos_embed": meta(1, 1 + 256 * frames, 1408),
        "fc_norm.weight": meta(1408),
    }
    trunk = describe(state, name="file.pt")
    assert trunk.frames == frames
    assert trunk.arguments["img_size"] == 224
    assert trunk.pools_patches


@pytest.mark.parametrize("container", [None, "model", "module"])
def test_the_model_gives_what_the_file_s_own_model_gives(save, make_vit, randomise, container):
    model = randomise(make_vit()).eval()
    state = model.state_dict() | {"head.weight": torch.zeros(3, 32)}
    loaded = load_vit(save({container: state} if container else state), num_heads=2)
    assert not loaded.training
    images = torch.randn(2, 3, 56, 70)
    torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["detection_relpos", "detection_relpos_interp_beit"])
def test_golden_detectors(save, name):
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    state = {
        f"backbone.{key.removeprefix('state.')}": value
        for key, value in tensors.items()
        if key.startswith("state.")
    }
    model = load_vit(save(state, "file.safetensors"))
    assert (model.window_size, model.global_attn_indexes, model.num_heads) == (4, (3,), 2)
    result = model.forward_feature_map(tensors["input.image"])
    torch.testing.assert_close(result, tensors["output.last_feat"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("fused", "given", "chosen"),
    [
        (False, None, "beit"),  # as published
        (False, "vitdet", "vitdet"),
        (True, None, "vitdet"),  # a joint bias, as detectron2's ViTDet has it
        (True, "beit", "beit"),
    ],
)
def test_the_interpolation_of_a_detector(save, make_detector, fused, given, chosen, caplog):
    """Named in the log where it was not given; it counts at other sizes only."""
    detector = make_detector(
        rel_pos=chosen, depth=4, global_attn_indexes=(1, 3), qkv_bias="qkv" if fused else "qv"
    )
    file = save(detector.state_dict(), "detector.pt")
    with caplog.at_level(logging.INFO):
        model = load_vit(file, **({} if given is None else {"rel_pos": given}))
    assert model.rel_pos == chosen
    other = {"beit": "vitdet", "vitdet": "beit"}[chosen]
    said = f"detector.pt: at other sizes than 96 px, relative positions are interpolated {chosen!r}"
    assert (said in caplog.text) is (given is None)
    assert (f"rel_pos={other!r} is the other way" in caplog.text) is (given is None)
    images = torch.randn(1, 3, 128, 160)
    expected = detector.net.forward_feature_map(images)
    torch.testing.assert_close(model.forward_feature_map(images), expected, atol=0, rtol=0)
    changed = load_vit(file, rel_pos=other).forward_feature_map(images)
    assert (changed - expected).abs().max() > 1e-4


def test_a_detector_that_does_not_tell_its_windows(save):
    tensors = load_file(GOLDEN / "detection_norelpos.safetensors")
    state = {
        key.removeprefix("state."): value
        for key, value in tensors.items()
        if key.startswith("state.")
    }
    with pytest.raises(ValueError, match=r"do not show its windows: pass window_size"):
        load_vit(save(state), num_heads=2)
    model = load_vit(
        save(state), num_heads=2, img_size=96, window_size=4, global_attn_indexes=(3,),
        pretrain_img_size=describe(state, name="").arguments["img_size"],
    )  # fmt: skip
    result = model.forward_feature_map(tensors["input.image"])
    torch.testing.assert_close(result, tensors["output.last_feat"], atol=1e-4, rtol=1e-4)


def test_the_class_token_of_a_segmentor_has_no_position(make_vit, randomise):
    model = randomise(make_vit(final_norm=False)).eval()
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    state |= {"backbone.level_embed": torch.zeros(3, 32), "backbone.norm1.weight": torch.ones(32),
              "decode_head.cls_embed.weight": torch.zeros(3, 8)}  # fmt: skip
    loaded = vit_from(state, name="file.pt", num_heads=2)
    tokens, grid = model.embed(torch.ones(1, 3, 56, 56))
    tokens[:, 0] -= model.pos_embed[:, 0]
    expected = model.forward_tokens(tokens, grid)
    torch.testing.assert_close(loaded(torch.ones(1, 3, 56, 56)), expected)
    assert state["backbone.pos_embed"][0, 0].any()  # the caller's weights are left alone


def test_a_picture_is_a_clip_of_one_frame(make_vit, randomise):
    model = randomise(make_vit(img_size=224, final_norm=False)).eval()
    frames = torch.randn(1, 8, 256, 32)
    frames = frames - frames.mean(1, keepdim=True)  # around the positions of the picture model
    positions = model.pos_embed[:, None, 1:] + frames
    state = model.state_dict() | {
        "patch_embed.proj.weight": model.patch_embed.proj.weight.detach()[:, :, None],
        "pos_embed": torch.cat([model.pos_embed[:, :1], positions.flatten(1, 2)], 1).detach(),
    }
    loaded = vit_from(state, name="file.pt", num_heads=2)
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(loaded(images), model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [0, 4])
def test_tables_of_one_size_do_not_tell_windows(save, make_detector, window):
    detector = make_detector(rel_pos="beit", window_size=window, global_attn_indexes=())
    file = save(detector.state_dict())
    with pytest.raises(ValueError, match="of one size, or none"):
        load_vit(file)
    model = load_vit(file, window_size=window, img_size=96)
    images = torch.randn(1, 3, 96, 96)
    expected = detector.net.forward_feature_map(images)
    torch.testing.assert_close(model.forward_feature_map(images), expected)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_can_be_written_again_from_the_model_that_it_made(save, suffix):
    name = f"weights{suffix}"
    file = save(build_vit("eva_debug").state_dict(), name)
    model = load_vit(file)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save({"model": model.state_dict()} if suffix == ".pt" else model.state_dict(), name)
    for key, value in load_vit(file).state_dict().items():
        assert torch.equal(value, before[key])


def test_models_of_the_same_weights_share_nothing():
    weights = build_vit("eva_debug").state_dict()
    first, second = (vit_from(weights, name="file.pt") for _ in range(2))
    with torch.no_grad():
        first.pos_embed.fill_(7.0)
    assert not (second.pos_embed == 7.0).any()
    assert not (weights["pos_embed"] == 7.0).any()


@pytest.mark.parametrize(
    "name", ["blocks.0.ls1.gamma", "blocks.1.attn.q_norm.weight", "norm_pre.weight", "reg_token"]
)
def test_other_models_are_refused_by_what_eva_does_not_have(make_vit, name):
    """As in DINOv2, SigLIP, CLIP and DINOv2 with registers."""
    state = make_vit().state_dict() | {name: torch.zeros(32)}
    with pytest.raises(ValueError, match=rf"file.pt holds no EVA-01 ViT, which has no {name}"):
        vit_from(state, name="file.pt", num_heads=2)


def test_half_precision_weights_stay_half(save):
    state = {name: value.half() for name, value in build_vit("eva_debug").state_dict().items()}
    file = save(state)
    assert {p.dtype for p in load_vit(file, dtype=torch.float16).parameters()} == {torch.float16}
    assert {p.dtype for p in load_vit(file).parameters()} == {torch.float32}


def test_overrides(save):
    file = save(build_vit("eva_debug").state_dict())
    model = load_vit(file, img_size=64, activation_checkpointing=True)
    assert model.pos_embed.shape == (1, 65, 128)
    assert model.activation_checkpointing


def test_the_bundled_weights_by_name():
    assert isinstance(load_vit("eva_debug"), VisionTransformer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "is not one of eva_backbone.VARIANTS.* pass num_heads"),
        (
            {"pos_embed": torch.zeros(1, 18, 32)},
            "17 positions of patches, which do not make a square",
        ),
        ({"pos_embed": None}, "no complete EVA ViT: it lacks pos_embed"),
        ({"patch_embed.proj.weight": None}, "expected one name ending in patch_embed.proj.weight"),
    ],
)
def test_weights_that_do_not_tell(make_vit, change, message):
    state = make_vit().state_dict() | change
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=rf"^file.pt .*{message}"):
        vit_from(state, name="file.pt")
