"""The adapter: official outputs and names, crops, gradients, recomputation, start."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from eva_backbone import VisionTransformer
from eva_backbone.resample import resample_bias_table, resample_pos_embed
from eva_segmentation.model.backbone import EVAViTAdapter
from eva_segmentation.model.vit_adapter import layout

GOLDEN = Path(__file__).parents[1] / "golden" / "segmentation_adapter.safetensors"
SIZES = dict(img_size=96, embed_dim=32, depth=4, num_heads=2, mlp_dim=80)
SIZES |= dict(conv_inplane=8, deform_num_heads=2)
RELATIVE = {"rel_pos": "table", "layer_scale": 1.0}
FORMS = pytest.mark.parametrize("form", [{}, RELATIVE], ids=["plain", "relative"])


@pytest.fixture
def make_adapter(randomise):
    """Function: a small adapter with random weights; `start=True` leaves it as it is built."""

    def make(*, start=False, **options):
        model = EVAViTAdapter(**SIZES | options)
        return model if start else randomise(model, std=0.1)

    return make


def test_golden():
    tensors = load_file(GOLDEN)
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    model = EVAViTAdapter(**SIZES | {"conv_inplane": 16}).eval()
    model.load_state_dict(state, strict=True)
    maps = model(tensors["input.image"])
    assert len(maps) == 4
    for level, actual in enumerate(maps, start=1):
        expected = tensors[f"output.f{level}"]
        assert expected.std() > 1e-2
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ade20k", "coco_stuff164k"])
@pytest.mark.parametrize("suffix", ["", "_relpos"])
def test_names_and_shapes_are_the_official_ones(official_shapes, name, suffix):
    with torch.device("meta"):
        model = EVAViTAdapter(
            embed_dim=1408,
            depth=40,
            num_heads=16,
            mlp_dim=6144,
            rel_pos="table" if suffix else "none",
            layer_scale=1.0 if suffix else None,
        )
    official = {
        key.removeprefix("backbone."): shape
        for key, shape in official_shapes(name + suffix).items()
        if key.startswith("backbone.")
    }
    assert {key: tuple(p.shape) for key, p in model.named_parameters()} == official
    assert sum(p.numel() for p in model.parameters()) == (
        1_064_204_160 if suffix else 1_056_204_160
    )
    state = {key: torch.empty(shape, device="meta") for key, shape in official.items()}
    norms = [f"spm.stem.{i}" for i in (1, 4, 7)] + [f"spm.conv{i}.1" for i in (2, 3, 4)]
    for norm in norms + [f"norm{i}" for i in range(1, 5)]:
        for buffer in ("running_mean", "running_var"):
            state[f"{norm}.{buffer}"] = torch.empty_like(state[f"{norm}.weight"])
        state[f"{norm}.num_batches_tracked"] = torch.empty((), dtype=torch.int64, device="meta")
    if suffix:
        index = torch.empty(3137, 3137, dtype=torch.int64, device="meta")
        state |= {f"blocks.{i}.attn.relative_position_index": index for i in range(40)}
    model.load_state_dict(state, strict=True, assign=True)


@FORMS
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 128), (224, 96)])
def test_any_crop_of_multiples_of_32(make_adapter, form, size):
    model = make_adapter(**form).eval()
    maps = model(torch.randn(1, 3, *size))
    shapes = [(1, 32, size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(feature_map.shape) for feature_map in maps] == shapes
    assert all(feature_map.isfinite().all() for feature_map in maps)


@FORMS
def test_another_crop_is_a_model_of_that_size_with_resampled_positions(make_adapter, form):
    model, small = make_adapter(**form).eval(), make_adapter(img_size=64, **form).eval()
    state = model.state_dict()
    state["pos_embed"] = resample_pos_embed(state["pos_embed"], (4, 4))
    for name in [name for name in state if name.endswith("bias_table")]:
        state[name] = resample_bias_table(state[name], 6, (4, 4))
    small.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    for actual, expected in zip(model(images), small(images), strict=True):
        torch.testing.assert_close(actual, expected)


def _transpose(model, heads=2, points=4):
    """Weights of a model that does on transposed images what this one does on others."""
    state = {}
    for name, value in model.state_dict().items():
        if name == "pos_embed":
            grid = value[:, 1:].unflatten(1, (6, 6)).transpose(1, 2).flatten(1, 2)
            value = torch.cat([value[:, :1], grid], dim=1)
        elif name.endswith("bias_table"):
            grid = value[:-3].unflatten(0, (11, 11)).transpose(0, 1).flatten(0, 1)
            value = torch.cat([grid, value[-3:]])
        elif "sampling_offsets" in name:  # (h, L, P, (x, y))
            value = value.unflatten(0, (heads, -1, points, 2)).flip(3).flatten(0, 3)
        elif value.ndim == 4:
            value = value.transpose(2, 3)
        state[name] = value
    return state


@FORMS
def test_rows_and_columns_are_not_confused(make_adapter, form):
    """The golden file is square; here a wide crop and its transposition must agree."""
    model = make_adapter(**form).eval()
    mirrored = make_adapter(**form).eval()
    mirrored.load_state_dict(_transpose(model), strict=True)
    images = torch.randn(1, 3, 96, 160)
    for actual, expected in zip(mirrored(images.mT), model(images), strict=True):
        assert expected.std() > 1e-2
        torch.testing.assert_close(actual.mT, expected, atol=2e-5, rtol=1e-4)


def test_positions_are_centres_of_cells():
    where = layout((2, 4), torch.device("cpu"))
    assert where.levels == ((4, 8), (2, 4), (1, 2))
    assert where.extract.shapes == ((2, 4),)
    assert where.inject.reference[[0, 1, 4]].tolist() == [
        [0.125, 0.25],
        [0.375, 0.25],
        [0.125, 0.75],
    ]
    assert where.extract.reference.shape == (32 + 8 + 2, 2)
    assert where.extract.reference[-2:].tolist() == [[0.25, 0.5], [0.75, 0.5]]


@FORMS
def test_every_parameter_gets_a_gradient(make_adapter, form):
    model = make_adapter(**form).train()
    sum(feature_map.square().mean() for feature_map in model(torch.randn(2, 3, 64, 96))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    # the class token gets no position embedding
    assert not model.pos_embed.grad[:, 0].any()
    assert model.pos_embed.grad[:, 1:].abs().sum(-1).min() > 0


@FORMS
def test_recomputation_changes_nothing(make_adapter, form):
    options = form | {"drop_path_rate": 0.5}
    model = make_adapter(**options).train()
    again = make_adapter(**options, activation_checkpointing=True).train()
    again.load_state_dict(model.state_dict())
    images = torch.randn(3, 3, 64, 64)
    saved = []
    for each in (model, again):
        torch.manual_seed(3)
        count = [0]

        def note(tensor, count=count):
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            maps = each(images)
        saved.append(count[0])
        sum(feature_map.square().mean() for feature_map in maps).backward()
    assert saved[1] < saved[0] / 2
    for (name, mine), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda text, name=name: name + text)
    for mine, theirs in zip(model.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)  # batch norms have counted once


def test_a_batch_of_one_whose_paths_are_all_dropped(make_adapter, monkeypatch):
    model = make_adapter(drop_path_rate=0.9).train()
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.ones(*shape))
    sum(feature_map.square().mean() for feature_map in model(torch.randn(1, 3, 64, 64))).backward()
    extractor = model.interactions[0].extractor
    assert not extractor.ffn.fc1.weight.grad.any()
    assert extractor.attn.value_proj.weight.grad.any()


def test_stochastic_depth_of_the_extractors_is_the_full_rate(make_adapter):
    model = make_adapter(drop_path_rate=0.5)
    rates = [m.drop_path.rate for m in model.interactions.modules() if hasattr(m, "drop_path")]
    assert rates == [0.5] * 6
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 1 / 6, 1 / 3, 0.5])


def test_the_start_is_the_plain_vit_beside_a_spatial_prior(make_adapter):
    """Injectors add nothing at first; weights are spread as in the official code."""
    model = make_adapter(start=True).eval()
    assert not any(block.injector.gamma.any() for block in model.interactions)
    plain = VisionTransformer(
        **{key: SIZES[key] for key in ("img_size", "embed_dim", "depth", "num_heads", "mlp_dim")},
        patch_size=16,
        final_norm=False,
    ).eval()
    own = {name: value for name, value in model.state_dict().items() if name in plain.state_dict()}
    own["cls_token"] = own["cls_token"] - own["pos_embed"][:, :1]  # which the ViT adds
    plain.load_state_dict(own, strict=True)
    images = torch.randn(1, 3, 96, 96)
    seen = []
    model.interactions[3].extractor.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(images)
    expected = plain.forward_feature_map(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen[0], expected)

    assert model.level_embed.std().item() == pytest.approx(1.0, abs=0.25)
    fan_out = {"spm.stem.3": 9 * 8, "spm.fc2": 32, "up": 4 * 32}
    for name, fan in fan_out.items():
        weight = model.get_submodule(name).weight
        assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.15)
    ffn = model.interactions[0].extractor.ffn
    assert ffn.fc1.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert ffn.dwconv.dwconv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.3)
    assert not ffn.fc1.bias.any()


def test_half_precision_autocast(make_adapter):
    model = make_adapter().eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(images)
    for actual, full in zip(maps, expected, strict=True):
        error = (actual.float() - full).square().mean().sqrt() / full.std()
        assert error < 0.05


def test_batch_norms_are_synchronised_unless_the_config_says_otherwise(make_adapter):
    model = make_adapter(start=True)
    synchronised = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(synchronised) == 10
    plain = make_adapter(start=True, norm_cfg={"type": "BN", "momentum": 0.01})
    assert isinstance(plain.norm4, nn.BatchNorm2d)
    assert plain.norm4.momentum == 0.01
    plain.load_state_dict(model.state_dict(), strict=True)
