"""Files that can be read and hold the wrong shapes or names: one sentence each, nothing loaded."""

import random

import pytest
import torch

from eva_backbone import VisionTransformer, load_pretrained, load_vit
from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.checkpoints.reading import read_weights

SIZES = {"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 2, "num_heads": 2}
SIZES |= {"mlp_dim": 24}
WINDOWS = {"extra_tokens": (), "final_norm": False, "window_size": 2, "global_attn_indexes": (1,)}
KINDS = {
    "mask": {"extra_tokens": ("cls", "mask")},
    "one bias": {"qkv_bias": "qkv"},
    "table": {"rel_pos": "table", "layer_scale": 0.1},
    "detector": WINDOWS | {"rel_pos": "vitdet"},
    "video": {},
}
SHAPES = [
    (), (0,), (1,), (47,), (0, 0), (1, 1), (5, 7), (2, 3, 4), (1, 0, 16), (1, 1, 16), (1, 2, 16),
    (2, 17, 16), (16, 3, 0, 0), (16, 3, 14, 15), (16, 3, 1, 14, 14), (16, 3, 0, 14, 14), (2,) * 6,
]  # fmt: skip
NAMES = [
    "pos_embed", "patch_embed.proj.weight", "cls_token", "blocks.0.attn.qkv.weight",
    "blocks.0.attn.q_bias", "blocks.0.attn.v_bias", "blocks.0.attn.qkv.bias",
    "blocks.0.mlp.fc1.weight", "blocks.0.attn.rel_pos_h", "blocks.1.attn.rel_pos_w",
    "blocks.0.attn.relative_position_bias_table", "blocks.1.norm1.weight", "blocks.0.gamma_1",
    "blocks.77.norm1.weight", "blocks.x.norm1.weight", "blocks.", "", "x" * 3000,
]  # fmt: skip


def _state(kind):
    state = dict(VisionTransformer(**SIZES | KINDS[kind]).state_dict())
    if kind == "video":
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, None].clone()
        state["pos_embed"] = torch.zeros(1, 1 + 2 * 16**2, 16)
    return state


def _attempts(file, model):
    converters = [
        lambda wanted=wanted, size=size: FORMATS[wanted](read_weights(file), patch_size=size)
        for wanted in FORMATS
        for size in (None, 8, 0)
    ]
    return [
        lambda: load_vit(file),
        lambda: load_vit(file, num_heads=2, window_size=0),
        lambda: load_pretrained(model, file),
        lambda: load_pretrained(
            model, file, allow_missing=[""], allow_skipped=[""], reinitialise=[""]
        ),
        *converters,
    ]


def _try_all(file, kind):
    """Count the errors; anything but a `ValueError` of one sentence fails."""
    model = VisionTransformer(**SIZES | KINDS[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    messages = []
    for index, attempt in enumerate(_attempts(file, model)):
        try:
            attempt()
        except ValueError as error:
            messages.append(str(error))
            if index == 2:
                for name, value in model.state_dict().items():
                    assert torch.equal(value, before[name]), name
    for message in messages:
        assert "\n" not in message
        assert len(message) < 1500
        assert not any(raw in message for raw in ("isqrt", "unpack", "not enough", "dim "))
    return messages


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "video")) for kind in KINDS]
)
def test_wrong_shapes(kind, save):
    """Each part in turn with a shape that it cannot have: too few dimensions, empty, odd."""
    generator, errors = random.Random(kind), 0
    for name in NAMES:
        for shape in generator.sample(SHAPES, 2):
            errors += len(_try_all(save(_state(kind) | {name: torch.ones(shape)}), kind))
    assert errors > 100


def test_other_structures(save):
    cyclic = {}
    cyclic["model"] = cyclic
    deep = {}
    for _ in range(200):
        deep = {"model": deep}
    state = _state("mask")
    contents = [cyclic, deep, {"model": {"model": {"model": state}}}, {"model": [state]}]
    contents += [state | {name: torch.ones(2)} for name in (3, None, ("a",), b"x", 1.5)]
    contents += [state | {"norm.weight": value} for value in (None, 3, "s", [1.0], {"a": 1})]
    for content in contents:
        messages = _try_all(save(content), "mask")
        assert len(messages) == 10
        assert all("weights.pt" in message for message in messages)
