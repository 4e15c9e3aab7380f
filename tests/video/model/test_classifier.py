"""The classifier of clips, and the official files by name at small sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eva_backbone import variants
from eva_video.model.classifier import (
    VideoClassifier,
    build_video_classifier,
    initialise,
    load_video_classifier,
)

CLASSES = {"k722": 722, "k400": 400, "k600": 600, "k700": 700}
FRAMES = {"k722": 8, "k400": 16, "k600": 16, "k700": 16}
COUNTS = {
    "k722": 1_014_686_546,
    "k400": 1_017_116_432,
    "k600": 1_017_398_232,
    "k700": 1_017_539_132,
}

TINY = {
    "img_size": 224, "patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 48
}  # fmt: skip


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and EVA-g so small that its files fit into it."""
    small = replace(
        variants.VARIANTS["eva_g_patch14"], embed_dim=44, depth=2, num_heads=2, mlp_dim=48
    )
    monkeypatch.setitem(variants.VARIANTS, "eva_g_patch14", small)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def save(tmp_path):
    def write(state):
        torch.save(state, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return write


@pytest.fixture
def save_tiny(save, randomise):
    def make(num_classes):
        model = randomise(VideoClassifier(num_classes=num_classes, frames=2, **TINY)).eval()
        return model, save(model.state_dict())

    return make


@pytest.mark.parametrize("name", CLASSES)
def test_the_official_sizes(name):
    with torch.device("meta"):
        model = build_video_classifier(
            "eva_g_patch14", num_classes=CLASSES[name], frames=FRAMES[name]
        )
    state = model.state_dict()
    assert sum(value.numel() for value in state.values()) == COUNTS[name]
    assert len(state) == 528
    assert state["patch_embed.proj.weight"].shape == (1408, 3, 1, 14, 14)
    assert state["pos_embed"].shape == (1, 1 + 256 * FRAMES[name], 1408)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("container", ["model", "module", None])
def test_official_files_by_name(name, container, weights, randomise, official):
    source = build_video_classifier("eva_g_patch14", num_classes=CLASSES[name], frames=FRAMES[name])
    state = randomise(source).eval().state_dict()
    file = weights / f"eva_video_{name}.pth"
    torch.save({container: state, "epoch": 3} if container else state, file)
    official(file)
    model = load_video_classifier(f"eva_video_{name}")
    assert (model.num_classes, model.frames, model.img_size) == (CLASSES[name], FRAMES[name], 224)
    clips = torch.randn(1, 2, 3, 28, 42)
    torch.testing.assert_close(model(clips), source(clips), atol=0, rtol=0)
    shorter = load_video_classifier(file.name, frames=4, image_size=56)
    assert shorter.pos_embed.shape == (1, 1 + 4 * 16, 44)


def test_kinetics_400_starts_from_kinetics_722(weights, randomise, official):
    """8 -> 16 frames trilinearly, and the rows of the head that the mapping picks."""
    source = randomise(build_video_classifier("eva_g_patch14", num_classes=722, frames=8))
    file = weights / "eva_video_k722.pth"
    torch.save({"model": source.state_dict()}, file)
    official(file)
    rows = np.sort(np.random.default_rng(0).permutation(722)[:400])
    model = build_video_classifier("eva_g_patch14", num_classes=400, frames=16)
    report = initialise(model, "eva_video_k722", head_rows=rows)
    assert not report.missing
    assert not report.skipped
    assert list(report.resampled) == ["pos_embed"]
    assert torch.equal(model.head.weight, source.head.weight[rows])
    assert torch.equal(model.head.bias, source.head.bias[rows])
    patches = source.pos_embed[:, 1:].reshape(1, 8, 16, 16, 44).permute(0, 4, 1, 2, 3)
    expected = F.interpolate(patches, size=(16, 16, 16), mode="trilinear", align_corners=False)
    torch.testing.assert_close(model.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))


def test_kinetics_722_starts_from_masked_image_modelling(weights, randomise, official):
    """The final norm and the prediction head are left out, `fc_norm` and the head begin."""
    picture = randomise(variants.build_vit("eva_g_patch14", img_size=224, final_norm=True))
    extra = {"mask_token": torch.zeros(1, 1, 44), "lm_head.weight": torch.zeros(768, 44)}
    torch.save({"module": picture.state_dict() | extra}, weights / "eva_psz14.pt")
    official(weights / "eva_psz14.pt")
    model = build_video_classifier("eva_g_patch14", num_classes=722, frames=8)
    report = initialise(model, "eva_psz14")
    assert set(report.skipped) == {"norm.weight", "norm.bias", *extra}
    assert set(report.missing) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert torch.equal(model.fc_norm.weight, torch.ones(44))
    assert 0 < model.head.weight.abs().max() < 1e-3
    per_frame = model.pos_embed[0, 1:].unflatten(0, (8, 256))
    assert (per_frame == per_frame[:1]).all()
    assert torch.equal(per_frame[0], picture.pos_embed[0, 1:])


def test_another_number_of_classes_begins_a_head(save_tiny):
    model, file = save_tiny(num_classes=7)
    other = VideoClassifier(num_classes=3, frames=2, **TINY)
    report = initialise(other, file)
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert torch.equal(other.fc_norm.weight, model.fc_norm.weight)


def test_files_of_other_models(save, make_vit, save_tiny):
    with pytest.raises(
        ValueError,
        match=r"weights.pt holds a backbone of images, not a classifier of videos: train",
    ):
        load_video_classifier(save(make_vit().state_dict()))
    model, _ = save_tiny(num_classes=7)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    with pytest.raises(ValueError, match="holds a backbone of videos, not a classifier"):
        load_video_classifier(save(state))
