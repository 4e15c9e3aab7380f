"""The adapter: official outputs and names, crops, gradients, recomputation, start."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone import VisionTransformer
from eva_backbone.resample import resample_bias_table, resample_pos_embed
from eva_openmmlab.adapter_backbone import EVAViTAdapter

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
