"""Loading what fits: containers, prefixes, biases, sizes, and the report about it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eva_backbone import load_pretrained


def _equal_states(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


# Prefixes


def test_pretrained_file_into_a_detector(make_vit, make_detector, wrap, save):
    """`eva_psz14to16.pt` into `backbone.net.*`: position tables and pyramid start from scratch."""
    source = make_vit(patch_size=16, img_size=64, extra_tokens=("cls", "mask"))
    source.lm_head = nn.Linear(32, 8)
    model = wrap(make_detector(), roi_heads=nn.Linear(4, 4))
    head = model.roi_heads.weight.clone()
    report = load_pretrained(model, save({"model": source.state_dict()}))
    trunk = model.backbone.net
    assert torch.equal(trunk.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert torch.equal(trunk.pos_embed, source.pos_embed)
    assert torch.equal(model.roi_heads.weight, head)
    assert "backbone.net.blocks.0.attn.q_bias" in report.loaded
    assert report.skipped == {  # as they are called in the file
        "cls_token": "this model has no class token",
        "mask_token": "pre-training only",
        "norm.weight": "final norm, which this model does not have",
        "norm.bias": "final norm, which this model does not have",
        "lm_head.weight": "pre-training head",
        "lm_head.bias": "pre-training head",
    }
    outside = {name for name in model.state_dict() if not name.startswith("backbone.net.")}
    tables = {f"backbone.net.blocks.{i}.attn.rel_pos_{axis}" for i in (0, 1) for axis in "hw"}
    assert set(report.missing) == outside | tables
    assert {report.missing[name] for name in outside} == {"outside the trunk, initialised"}
    assert {report.missing[n] for n in tables} == {"zero: no relative position at the start"}


# Biases


@pytest.mark.parametrize(("stored", "wanted"), [("qv", "qkv"), ("qkv", "qv")])
def test_the_bias_is_converted_without_effect(make_vit, save, stored, wanted):
    """Also from a key bias that is not zero: it has no effect."""
    source, model = make_vit(qkv_bias=stored), make_vit(qkv_bias=wanted)
    report = load_pretrained(model, save(source.state_dict()), complete=True)
    assert not report.skipped
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(model(images), source(images), atol=2e-5, rtol=1e-5)


# Sizes


def test_patch_14_to_16(make_vit, save):
    """Equals the official `interpolate_patch_14to16.py`: plain bicubic for both."""
    source, model = make_vit(img_size=56, patch_size=14), make_vit(img_size=48, patch_size=16)
    report = load_pretrained(model, save(source.state_dict()))
    bicubic = {"mode": "bicubic", "align_corners": False}
    kernel = F.interpolate(source.patch_embed.proj.weight, (16, 16), **bicubic)
    assert torch.equal(model.patch_embed.proj.weight, kernel)
    square = source.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    positions = F.interpolate(square, (3, 3), **bicubic).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:], positions, atol=0, rtol=0)
    assert torch.equal(model.pos_embed[:, :1], source.pos_embed[:, :1])
    assert report.resampled == {
        "patch_embed.proj.weight": ((32, 3, 14, 14), (32, 3, 16, 16)),
        "pos_embed": ((1, 17, 32), (1, 10, 32)),
    }
    assert set(report.resampled) < set(report.loaded)


def test_decomposed_tables(make_detector, save):
    """As detectron2 would read them at the other size; windows keep theirs."""
    source, model = make_detector(img_size=96), make_detector(img_size=160)
    report = load_pretrained(model, save(source.state_dict()), complete=True)
    for axis in ("rel_pos_h", "rel_pos_w"):
        stored = getattr(source.net.blocks[1].attn, axis).t()[None]
        expected = F.interpolate(stored, 19, mode="linear")[0].t()
        torch.testing.assert_close(getattr(model.net.blocks[1].attn, axis), expected)
    resampled = {f"net.blocks.1.attn.rel_pos_{axis}": ((11, 16), (19, 16)) for axis in "hw"}
    assert report.resampled == resampled
    images = torch.randn(1, 3, 160, 160)
    for mine, theirs in zip(model(images), source(images), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_bias_tables(make_vit, save):
    """A model for another size, filled from the file, acts as the file's model at that size."""
    source = make_vit(rel_pos="table", img_size=56, final_norm=False)
    model = make_vit(rel_pos="table", img_size=84, final_norm=False)
    report = load_pretrained(model, save(source.state_dict()))
    assert report.resampled["blocks.0.attn.relative_position_bias_table"] == ((52, 2), (124, 2))
    images = torch.randn(1, 3, 84, 84)
    torch.testing.assert_close(model(images), source(images), atol=2e-5, rtol=1e-4)


# Heads and other choices


def test_a_head_of_other_classes_can_start_from_scratch(make_classifier, save):
    source, model = make_classifier(outputs=10), make_classifier(outputs=7)
    head = model.head.weight.clone()
    report = load_pretrained(model, save(source.state_dict()), reinitialise=[r"head\."])
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.fc_norm.weight, source.fc_norm.weight)
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert set(report.missing.values()) == {"initialised from scratch, other shape in the file"}
    assert report.from_scratch.startswith("head.weight, head.bias of ")
    assert load_pretrained(source, save(source.state_dict())).from_scratch == ""
    assert (
        report.skipped["head.weight"] == "(10, 32) does not fit (7, 32), initialised from scratch"
    )


# Meta device


def test_a_meta_model_becomes_real(make_vit, save):
    source = make_vit()
    path = save(source.state_dict())
    before = path.read_bytes()
    with torch.device("meta"):
        model = make_vit()
    model.patch_embed.requires_grad_(False)
    load_pretrained(model, path, complete=True)
    assert _equal_states(model, source)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "pos_embed" in trainable
    assert "patch_embed.proj.weight" not in trainable
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)  # the file may be mapped into memory: it must not change
    assert path.read_bytes() == before
