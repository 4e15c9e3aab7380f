"""The classifier of clips, and the official files by name at small sizes."""

from dataclasses import replace

import pytest
import torch

from eva_backbone import variants
from eva_backbone.checkpoints.reading import Weights
from eva_command.convert import main as convert
from eva_engine.checkpoints.files import save_weights
from eva_video.model.classifier import (
    VideoClassifier,
    build_video_classifier,
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


def test_frames_are_kept_or_the_form_refused(tmp_path, capsys):
    """Positions of 8 frames at 112 px are as many as those of 2 at 224 px."""
    model = VideoClassifier(num_classes=3, frames=8, **TINY | {"img_size": 112})
    notes = {"model": {"frames": 8}}
    save_weights(model.state_dict(), tmp_path / "own.safetensors", notes)

    words = [str(tmp_path / "own.safetensors"), "--to", "official", "--output"]
    with pytest.raises(SystemExit, match="1"):
        convert([*words, str(tmp_path / "official.pth")])
    assert "only .safetensors can note 8 frames" in capsys.readouterr().err
    assert not (tmp_path / "official.pth").exists()
    assert convert([*words, str(tmp_path / "official.safetensors")]) == 0
    assert Weights.read(tmp_path / "official.safetensors").frames == 8


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
