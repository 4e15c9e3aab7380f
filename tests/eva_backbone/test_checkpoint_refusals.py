"""Loading what does not fit: one clear error, and nothing is partly loaded."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from eva_backbone import load_pretrained


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
        path, message = save(state, "weights.safetensors"), "weights.safetensors is refused"
    else:
        path = save({"model": state}, _use_new_zipfile_serialization=kind == "zip")
        message = "weights.pt is refused: it is damaged"
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
    with refused(model, "weights.pt is refused: .*could run code .*convert it to safetensors"):
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no plain state dict: dict"),
        ([torch.zeros(2)], "holds no plain state dict: list"),
        (
            _resnet_state(),
            "holds .*patch_embed.proj.weight, .*conv1.weight",
        ),
    ],
)
def test_no_weights_of_a_vit(make_vit, save, refused, content, message):
    model = make_vit()
    with refused(model, f"weights.pt {message}"):
        load_pretrained(model, save(content))


# Files that do not fit


def test_a_head_of_other_classes(make_classifier, save, refused):
    state, model = make_classifier(outputs=10).state_dict(), make_classifier(outputs=7)
    with refused(model, r"as reinitialise\): head.weight \(10, 32\) -> \(7, 32\), head.bias"):
        load_pretrained(model, save(state))


def test_a_video_file_is_not_read_as_one_large_image(make_vit, save, refused):
    """Four frames of 5 x 5 patches make 100 positions, which also is 10 x 10."""
    state, model = make_vit(img_size=70).state_dict(), make_vit(img_size=70)
    state["pos_embed"] = torch.zeros(1, 101, 32)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, None]
    with refused(model, r"patch_embed.proj.weight \(32, 3, 1, 14, 14\) -> \(32, 3, 14, 14\)"):
        load_pretrained(model, save(state))
