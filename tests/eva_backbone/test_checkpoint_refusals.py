"""Loading what does not fit: one clear error, and nothing is partly loaded."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from eva_backbone import VisionTransformer, load_pretrained, load_vit
from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.checkpoints.reading import read_weights


def _resnet_state():
    layers = nn.Sequential(nn.Conv2d(3, 8, 7, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 10))
    names = {"0": "conv1", "1": "bn1", "2": "fc"}
    state = layers.state_dict()
    return {f"{names[key[0]]}{key[1:]}": value for key, value in state.items()}


# Damaged and dangerous files


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere(make_vit, save, refused, kind):
    """Cut at 20 places, the first bytes and the last among them."""
    model = make_vit(depth=1)
    state = make_vit(depth=1).state_dict()
    if kind == "safetensors":
        path, message = save(state, "weights.safetensors"), "weights.safetensors"
    else:
        path = save({"model": state}, _use_new_zipfile_serialization=kind == "zip")
        message = "weights.pt"
    content = path.read_bytes()
    size = len(content)
    places = {0, 1, 7, 8, 9, 100, size - 100, size - 8, size - 1} | {
        size * i // 10 for i in range(10)
    }
    for place in sorted(places):
        path.write_bytes(content[:place])
        with refused(model, message):
            load_pretrained(model, path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["beside", "instead", "below"])
def test_a_pickle_with_code_is_refused_and_not_run(
    make_vit, save, refused, malice, tmp_path, where, legacy
):
    marker = tmp_path / "marker"
    trap, state = malice(marker), make_vit().state_dict()
    content = {
        "beside": {"model": state, "args": trap},
        "instead": trap,
        "below": {"model": state | {"pos_embed": trap}},
    }[where]
    path = save(content, _use_new_zipfile_serialization=not legacy)
    model = make_vit()
    with refused(model, "weights.pt .*safetensors"):
        load_pretrained(model, path)
    assert not marker.exists()


# Files that hold something else


NO_WEIGHTS = {
    "a web page": lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
    "a git-lfs pointer": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    ),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_stands_in_place_of_weights(make_vit, tmp_path, kind, suffix):
    path = tmp_path / f"weights.{suffix}"
    NO_WEIGHTS[kind](path)
    with pytest.raises((ValueError, OSError), match="weights"):
        load_pretrained(make_vit(depth=1), path)


# Files that do not fit


def test_a_head_of_other_classes(make_classifier, save, refused):
    state, model = make_classifier(outputs=10).state_dict(), make_classifier(outputs=7)
    with refused(model, r"as reinitialise\): head.weight \(10, 32\) -> \(7, 32\), head.bias"):
        load_pretrained(model, save(state))


SIZES = dict(
    img_size=56, patch_size=14, embed_dim=16, depth=2, num_heads=2, mlp_dim=24,
    extra_tokens=("cls", "mask"),
)  # fmt: skip
WRONG = {
    "pos_embed": (1, 0, 16),
    "patch_embed.proj.weight": (16, 3, 1, 14, 14),
    "cls_token": (),
    "blocks.0.attn.qkv.weight": (5, 7),
    "blocks.0.attn.q_bias": (0,),
    "blocks.0.mlp.fc1.weight": (2,) * 6,
    "blocks.0.attn.rel_pos_h": (1,),
    "blocks.77.norm1.weight": (16,),
    "blocks.x.norm1.weight": (16,),
}


def refuse_all(file):
    """Every reader refuses the file, and a model stays as it is."""
    model = VisionTransformer(**SIZES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=file.name):
        load_pretrained(model, file)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=file.name):
        load_vit(file)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes(name, save):
    state = VisionTransformer(**SIZES).state_dict()
    refuse_all(save({**state, name: torch.ones(WRONG[name])}))


def test_other_structures(save):
    cyclic = {}
    cyclic["model"] = cyclic
    state = dict(VisionTransformer(**SIZES).state_dict())
    contents = [cyclic, {"model": {"model": {"model": state}}}, {"model": [state]}]
    contents += [state | {3: torch.ones(2)}, state | {"norm.weight": "s"}]
    for content in contents:
        file = save(content)
        refuse_all(file)
        for convert in FORMATS.values():
            with pytest.raises(ValueError, match=file.name):
                convert(read_weights(file), patch_size=8)
    for content in ({}, [torch.zeros(2)], _resnet_state()):
        refuse_all(save(content))
