"""Folders for open_clip: written from files and runs, and read by open_clip alone."""

import json

import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from eva_command.convert import main
from eva_contrastive.model import open_clip_form
from eva_contrastive.model.eva_clip import build_eva_clip, tokenize
from eva_contrastive.model.loading import load_eva_clip
from eva_data.transforms import evaluation_transform
from eva_engine.checkpoints import run_checkpoint
from eva_engine.checkpoints.files import save_weights

MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]


@pytest.fixture
def debug(randomise):
    def make(**more):
        return randomise(build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32, **more))

    return make


@pytest.fixture
def convert(tmp_path, capsys):
    def run(source, *options, to="open-clip", output="folder", code=0):
        command = [str(source), "--to", to, "--output", str(tmp_path / output), *options]
        assert main(command) == code
        captured = capsys.readouterr()
        return captured.out if not code else captured.err

    return run


def _same(folder, model, *, atol=1e-5):
    """Features of pictures and texts through what open_clip reads."""
    name = f"local-dir:{folder}"
    peer, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["the digit seven", "", "a dog " * 99])
    assert torch.equal(
        tokens, tokenize(["the digit seven", "", "a dog " * 99], 32)[:, : tokens.shape[1]]
    )
    picture = Image.radial_gradient("L").convert("RGB").crop((0, 30, 200, 256))
    settings = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    own = evaluation_transform(model.image_size, mean=settings["mean"], std=settings["std"])
    torch.testing.assert_close(preprocess(picture), own(picture), atol=1e-6, rtol=0)
    image = own(picture)[None]
    model.eval()
    with torch.no_grad():
        for found, expected in (
            (peer.eval().encode_image(image), model.encode_image(image)),
            (peer.encode_text(tokens), model.encode_text(tokens)),
        ):
            torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)
    scale = model.text.logit_scale.item()
    assert peer.logit_scale.item() == pytest.approx(scale)
    return peer


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_run_with_its_pixels(sigmoid, debug, convert, tmp_path):
    model = debug(sigmoid=sigmoid)
    step = tmp_path / "run" / run_checkpoint.CHECKPOINTS / "step_00000001"
    step.mkdir(parents=True)
    config = {"data": {"mean": MEAN, "std": STD}}
    save_weights(dict(model.state_dict()), step / run_checkpoint.WEIGHTS, config)
    run_checkpoint.mark_complete(step)
    convert(tmp_path / "run")
    peer = _same(tmp_path / "folder", model)
    assert (list(peer.visual.preprocess_cfg["mean"]), peer.visual.image_std) == (MEAN, STD)
    assert (peer.logit_bias is not None) == sigmoid
    if sigmoid:
        assert peer.logit_bias.item() == model.text.logit_bias.item()
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == ["README.md", "open_clip_config.json", "open_clip_model.safetensors"]
    card = (tmp_path / "folder" / "README.md").read_text()
    assert str(tmp_path) not in card
    # and back, with what the run notes
    weights = tmp_path / "folder" / "open_clip_model.safetensors"
    with safe_open(weights, framework="pt") as content:
        assert json.loads(content.metadata()["config"]) == config
    convert(tmp_path / "folder", to="official", output="back.pt")
    _same(tmp_path / "folder", load_eva_clip(tmp_path / "back.pt"))


def test_the_official_file_in_half_precision(official_clip, convert, tmp_path):
    convert("eva_clip_psz14")
    weights = load_file(tmp_path / "folder" / "open_clip_model.safetensors")
    kept = {"visual.positional_embedding", "visual.ln_post.bias"}
    wide = {name for name, value in weights.items() if value.dtype == torch.float32}
    assert wide == kept  # what biases were moved into
    found = load_eva_clip(tmp_path / "folder" / "open_clip_model.safetensors")
    images = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(
        found.encode_image(images), official_clip.encode_image(images), atol=1e-5, rtol=1e-5
    )


@pytest.fixture
def giant(monkeypatch):
    """Let the sizes of EVA-g be the small ones."""
    monkeypatch.setattr(open_clip_form, "_GIANT", (14, 44, 2, 2, 48))
    monkeypatch.setattr(open_clip_form, "_TRUNKS", {28: "small_eva_giant"})


def test_eva_g_becomes_open_clips_eva01(giant, official_clip, convert, tmp_path, monkeypatch):
    entry = timm.models.model_entrypoint("small_eva_giant")
    monkeypatch.setitem(
        timm.models._registry._model_entrypoints,
        "small_eva_giant",
        lambda **kwargs: entry(embed_dim=44, mlp_ratio=48 / 44, **kwargs),
    )
    assert "small_eva_giant" in convert("eva_clip_psz14.pt")
    config = json.loads((tmp_path / "folder" / "open_clip_config.json").read_text())["model_cfg"]
    stock = open_clip.get_model_config("EVA01-g-14")
    assert config["vision_cfg"].keys() == stock["vision_cfg"].keys()
    assert config.keys() == stock.keys()
    convert(tmp_path / "folder", to="official", output="back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    expected = torch.load(tmp_path / "eva_clip_psz14.pt", weights_only=True)
    assert back.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(back[name], value), name  # bit for bit


def test_eva_clip_g_has_the_names_and_shapes_of_open_clips_eva01_g_14():
    """The published size, on the meta device: a strict load needs no more."""
    with torch.device("meta"):
        ours = build_eva_clip("eva_g_patch14", "clip_l", embed_dim=1024)
        peer = open_clip.create_model("EVA01-g-14", load_weights=False, device="meta")
    found = open_clip_form.to_trunk(ours.state_dict())
    expected = {name: tuple(value.shape) for name, value in peer.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in found.items()} == expected
