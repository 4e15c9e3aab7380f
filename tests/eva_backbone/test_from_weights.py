"""The ViT that a file holds: every official form, read off names and shapes alone."""

import ast
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eva_backbone import VARIANTS, build_vit, load_pretrained, load_vit
from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.reading import Weights

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
    trunk = describe(Weights(name, official(name)))
    assert trunk.arguments == G16 | {
        "img_size": 1280, "pretrain_img_size": 224, "qkv_bias": "qv", "extra_tokens": (),
        "layer_scale": None, "final_norm": False, "rel_pos": "beit", "window_size": 16,
        "global_attn_indexes": tuple(range(3, 40, 4)),
    }  # fmt: skip
    assert trunk.dense
    assert trunk.pools_patches
    assert describe(Weights(name, official(name))).frames == 1


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
    trunk = describe(Weights(name, official(name)))
    common = {"img_size": 896, "qkv_bias": "qv", "extra_tokens": ("cls",), "final_norm": False}
    assert trunk.arguments == G16 | common | more
    assert trunk.dense
    assert trunk.pools_patches


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
        trunk = describe(Weights("file.pt", named))
        assert trunk.arguments["img_size"] == side
        assert trunk.arguments["patch_size"] == VARIANTS[variant].patch_size
        assert trunk.pools_patches is pools
        assert not trunk.dense


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
    assert (f"rel_pos={other!r}" in caplog.text) is (given is None)
    images = torch.randn(1, 3, 128, 160)
    expected = detector.net.forward_feature_map(images)
    torch.testing.assert_close(model.forward_feature_map(images), expected, atol=0, rtol=0)
    changed = load_vit(file, rel_pos=other).forward_feature_map(images)
    assert (changed - expected).abs().max() > 1e-4


@pytest.fixture
def shards(tmp_path, randomise):
    """A ViT, and the folder of transformers' form of it: an index and two files."""
    model = randomise(build_vit("dinov3_debug", img_size=32)).eval()
    names = [*model.state_dict()]
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: model.state_dict()[name].clone() for name in part}, tmp_path / file)
    listed = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return model, tmp_path


def test_weights_in_several_files(shards):
    model, folder = shards
    images = torch.randn(1, 3, 32, 32)
    for source in (folder, folder / "model.safetensors.index.json"):
        assert torch.equal(load_vit(source)(images), model(images))


def test_several_files_hold_what_their_index_lists(shards):
    folder = shards[1]
    index = folder / "model.safetensors.index.json"
    content = index.read_text()
    (folder / "b.safetensors").rename(folder / "c.safetensors")
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        load_vit(folder)
    save_file({"odd": torch.ones(1)}, folder / "b.safetensors")
    with pytest.raises(ValueError, match="odd"):
        load_vit(folder)
    numbers = json.dumps({"weight_map": dict.fromkeys(json.loads(content)["weight_map"], 1)})
    for damage in (content[:-9], "[]", content.replace("b.saf", "../b.saf"), numbers):
        index.write_text(damage)
        with pytest.raises(ValueError, match=r"index\.json"):
            load_vit(folder)


def test_a_tensor_that_the_index_gives_to_another_file_is_refused(shards):
    model, folder = shards
    names = [*model.state_dict()]
    again = {name: torch.zeros_like(model.state_dict()[name]) for name in (names[0], *names[1::2])}
    save_file(again, folder / "b.safetensors")
    with pytest.raises(ValueError, match=names[0]):
        load_vit(folder)


@pytest.mark.parametrize(
    ("file", "model", "values"),
    [
        ({"variant": "eva_debug"}, {"variant": "eva02_debug"}, "the file has none.*gated MLPs"),
        ({"variant": "dinov2_reg_debug", "num_registers": 0}, {"variant": "dinov2_reg_debug"},
         "register_tokens.*the file has layer scale.*the model registers"),
        ({"variant": "eva_debug"}, {"variant": "dinov2_reg_debug", "num_registers": 0, "depth": 5},
         "gamma_1.*the file has none.*the model layer scale"),
    ],
)  # fmt: skip
def test_weights_of_another_kind_are_one_error_with_both(file, model, values):
    weights = Weights("file.pt", build_vit(**file).state_dict())
    with pytest.raises(ValueError, match=values):
        load_pretrained(build_vit(**model), weights)
