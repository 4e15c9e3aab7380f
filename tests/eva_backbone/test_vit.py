"""The ViT: input sizes, precision, checkpointing, initialisation, wrong input."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from eva_backbone import VisionTransformer, rel_pos

pytestmark = pytest.mark.smoke
SIDES = st.integers(min_value=1, max_value=7)


def _detector_vit(make_vit, **sizes):
    """Windows of 3, one global block, decomposed relative positions."""
    windows = {"window_size": 3, "global_attn_indexes": (1,), "rel_pos": "vitdet"}
    return make_vit(extra_tokens=(), final_norm=False, **windows | sizes)


# Sizes


@settings(max_examples=20, deadline=None)
@given(rows=SIDES, columns=SIDES)
def test_any_multiple_of_the_patch(make_vit, rows, columns):
    model = make_vit()
    images = torch.randn(2, 3, 14 * rows, 14 * columns)
    with torch.no_grad():
        features, feature_map = model.forward_features(images), model.forward_feature_map(images)
        assert features.shape == (2, 1 + rows * columns, 32)
        assert torch.equal(model(images), features)
        expected = features[:, 1:].transpose(1, 2).reshape(2, 32, rows, columns)
        torch.testing.assert_close(feature_map, expected)
        alone = model.forward_features(images[1:])
    torch.testing.assert_close(features[1:], alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=SIDES, columns=SIDES, kind=st.sampled_from(["none", "vitdet", "beit"]))
def test_any_multiple_of_the_patch_with_windows(make_vit, rows, columns, kind):
    model = _detector_vit(make_vit, rel_pos=kind)
    images = torch.randn(1, 3, 14 * rows, 14 * columns)
    with torch.no_grad():
        feature_map = model.forward_feature_map(images)
        features = model.forward_features(images)
    assert feature_map.shape == (1, 32, rows, columns)
    assert feature_map.isfinite().all()
    torch.testing.assert_close(feature_map.flatten(2).transpose(1, 2), features)


_KINDS = {
    "absolute": {},
    "offset": {"positions": "bicubic_offset"},
    "vitdet": {"rel_pos": "vitdet", "extra_tokens": (), "positions": "none"},
    "rotary": {"rotary": {"reference": 4.0}, "positions": "none"},
}


@pytest.mark.parametrize("kind", _KINDS)
def test_positions_of_a_canvas_are_those_of_its_upper_left_corner(make_vit, kind):
    stretched, cut = make_vit(**_KINDS[kind]), make_vit(**_KINDS[kind], canvas=84)
    for parameter in stretched.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cut.load_state_dict(stretched.state_dict())
    whole = torch.randn(1, 3, 84, 84)
    upper, attention = whole[:, :, :42], cut.blocks[0].attn
    with torch.no_grad():
        assert torch.equal(cut(whole), stretched(whole))
        assert not torch.allclose(cut(upper), stretched(upper), atol=1e-3)
        tokens, corner = stretched.embed(whole)[0], cut.embed(upper)[0]
        torch.testing.assert_close(corner, tokens[:, : corner.shape[1]])
        if kind == "vitdet":
            tables = (
                rel_pos.axis_embeddings(attention.rel_pos_h, n, kind, square=6) for n in (3, 6)
            )
            short, long = tables
            assert torch.equal(short, long[:3, :3])
        if kind == "rotary":
            tables = (
                cut.rope_embed(grid, 1, whole.device, square=6)[0] for grid in ((3, 6), (6, 6))
            )
            short, long = tables
            assert torch.equal(short, long[: 1 + 18])


# Mask


def test_masked_patches_are_replaced_and_only_they(make_vit):
    model = make_vit(extra_tokens=("cls", "mask"))
    images = torch.randn(2, 3, 28, 28)
    mask = torch.tensor([[True, False, False, False], [False, False, False, True]])
    tokens, _ = model.embed(images, mask)
    plain, _ = model.embed(images)
    changed = (tokens != plain).any(-1)
    assert torch.equal(changed[:, 1:], mask)
    assert not changed[:, 0].any()
    position = model.embed(torch.zeros_like(images))[0] - model.patch_embed.proj.bias
    expected = model.mask_token[0, 0] + position[0, 1]
    torch.testing.assert_close(tokens[0, 1], expected, atol=1e-6, rtol=1e-6)
    blank = images.clone()
    blank[0, :, :14, :14] = 7.0  # under the mask of sample 0
    assert torch.equal(model.forward_features(blank, mask), model.forward_features(images, mask))


# Precision


@pytest.mark.parametrize("kind", ["global", "windows"])
def test_bfloat16_autocast_is_close(make_vit, kind):
    model = make_vit() if kind == "global" else _detector_vit(make_vit)
    images = torch.randn(2, 3, 56, 70)
    with torch.no_grad():
        expected = model.forward_feature_map(images)
        with torch.autocast("cpu", torch.bfloat16):
            actual = model.forward_feature_map(images)
    assert actual.dtype == torch.float32  # the residual stream
    error = (actual - expected).norm() / expected.norm()
    assert 1e-4 < error < 2e-2  # the lower bound: autocast was in effect


# Activation checkpointing


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["global", "windows", "chunks"])
def test_activation_checkpointing_gives_equal_gradients(
    monkeypatch, make_vit, kind, drop_path_rate
):
    if kind == "chunks":  # of 32 queries, which are recomputed inside the block's recomputation
        monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 1)
    build = make_vit if kind == "global" else partial(_detector_vit, make_vit)
    plain = build(drop_path_rate=drop_path_rate).train()
    saving = copy.deepcopy(plain)
    saving.activation_checkpointing = True
    images = torch.randn(4, 3, 56, 14 * 9)
    outs, grads, calls = zip(
        *(_train_once(model, images) for model in (plain, saving)), strict=True
    )
    assert calls == (1, 2)  # it was recomputed
    torch.testing.assert_close(outs[1], outs[0], atol=0, rtol=0)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert grad.abs().max() > 0 or drop_path_rate, name
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-6)


def _train_once(model, images):
    """Output, gradients and how often the first block was computed."""
    calls = []
    model.blocks[0].norm1.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(5)
    out = model.forward_features(images)
    out.square().sum().backward()
    return out, {name: p.grad for name, p in model.named_parameters()}, len(calls)


# Initialisation


def test_initial_values():
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}
    model = VisionTransformer(**sizes, mlp_dim=128, extra_tokens=("cls", "mask"), layer_scale=0.1)
    for name, value in model.state_dict().items():
        if name.endswith("bias"):
            assert value.abs().max() == 0, name
        elif "norm" in name:
            assert torch.equal(value, torch.ones_like(value)), name
        elif "gamma" in name:
            assert torch.equal(value, torch.full_like(value, 0.1)), name
        elif name.endswith(("attn.proj.weight", "mlp.fc2.weight")):  # deeper ones start smaller
            depth = int(name.split(".")[1]) + 1
            assert value.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.1), name
        elif value.numel() > 1000:
            assert value.std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert 0.01 < value.std() < 0.03, name


def test_sizes_may_be_integers_of_numpy():
    assert VisionTransformer(img_size=np.int64(28), depth=1, embed_dim=32, num_heads=2)


# Wrong input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 100}, "img_size=100.*patch_size=14"),
        ({"depth": -1}, r"depth must be 1 or more.*depth=-1"),
        ({"img_size": (56, 28)}, r"side of a square.*img_size=\(56, 28\)"),
        ({"qkv_bias": True}, "qkv_bias must be one of.*qkv_bias=True"),
        ({"num_heads": 3}, "num_heads=3.*32"),
        (
            {"window_size": 1000, "extra_tokens": ()},
            "window_size=1000",
        ),
        ({"rel_pos": "table", "extra_tokens": ()}, "'table'"),
        ({"window_size": 2, "rel_pos": "vitdet"}, "window_size=2"),
        ({"global_attn_indexes": (1,)}, r"window_size=0, global_attn_indexes=\(1,\)"),
        (
            {"window_size": 2, "extra_tokens": (), "global_attn_indexes": (0, 2)},
            r"global_attn_indexes=\(0, 2\)",
        ),
    ],
)
def test_conflicting_options(make_vit, options, message):
    with pytest.raises(ValueError, match=message):
        make_vit(**options)


@pytest.mark.parametrize("method", ["forward", "forward_features", "forward_feature_map", "embed"])
def test_a_size_that_does_not_fit_names_both_and_the_fix(make_vit, method):
    message = r"patch size 14, got \(1, 3, 60, 56\); resize or pad to 70x56"
    with pytest.raises(ValueError, match=message):
        getattr(make_vit(), method)(torch.zeros(1, 3, 60, 56))


def test_one_graph_in_training(make_vit):
    """`torch.compile` sees no shape that depends on which samples a block keeps."""
    model = make_vit(drop_path_rate=0.5).train()
    images, results = torch.randn(6, 3, 56, 56), []
    for forward in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        model.zero_grad()
        out = forward(images)
        out.square().sum().backward()
        results.append([out, *(one.grad for one in model.parameters() if one.grad is not None)])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)
