"""Folders for timm: written from files and runs of every task, and read by timm alone."""

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from eva_backbone import variants
from eva_backbone.checkpoints.from_weights import load_pooled
from eva_classification.models import build_classifier, build_linear_probe, load_classifier
from eva_command.convert import main
from eva_contrastive.model.eva_clip import build_eva_clip
from eva_data.transforms import evaluation_transform
from eva_engine.checkpoints import run_checkpoint
from eva_engine.checkpoints.files import save_weights
from eva_pretrain.masked_image_modeling import masked_image_modeling

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(params=["qv", "qkv"])
def variant(request, monkeypatch):
    """Name of a tiny size, with the bias of EVA-g or of EVA-L, as one of the table."""
    sizes = variants.Variant(8, 32, 32, 3, 2, 81, request.param)
    monkeypatch.setitem(variants.VARIANTS, "eva_tiny", sizes)
    return "eva_tiny"


@pytest.fixture
def convert(tmp_path, capsys):
    """Function: convert a state dict or a path; the report and the output."""

    def run(source, *options, to="timm", output="folder", code=0):
        if isinstance(source, dict):
            torch.save({"model": source}, tmp_path / "mine.pth")
            source = tmp_path / "mine.pth"
        command = [str(source), "--to", to, "--output", str(tmp_path / output), *options]
        assert main(command) == code
        captured = capsys.readouterr()
        return (captured.err if code else captured.out), tmp_path / output

    return run


@torch.no_grad()
def _same(folder, expected, images, **more):
    peer = timm.create_model(f"local-dir:{folder}", pretrained=True, **more).eval()
    assert expected.std() > 1e-2, "a constant output would prove nothing"
    torch.testing.assert_close(peer(images), expected, **TOLERANCE)
    return peer


@torch.no_grad()
def test_pretrained(variant, convert, randomise):
    """Features are the mean of the patches after `norm`, as this toolkit extracts them."""
    model = randomise(masked_image_modeling(variant, target_dim=24)).eval()
    text, folder = convert(dict(model.state_dict()))
    assert "left out (not in timm's model): " in text
    assert "lm_head.weight" in text
    images = torch.randn(2, 3, 32, 32)
    tokens = model.norm(model.forward_tokens(*model.embed(images)))
    peer = _same(folder, tokens[:, 1:].mean(1), images)
    torch.testing.assert_close(peer.forward_features(images), tokens, **TOLERANCE)
    pooled, _ = load_pooled(folder.parent / "mine.pth")
    own = pooled.pool(pooled.vit.forward_features(images))
    torch.testing.assert_close(own, peer(images), **TOLERANCE)
    new = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7, img_size=48)
    assert new(torch.randn(1, 3, 48, 48)).shape == (1, 7)
    config = json.loads((folder / "config.json").read_text())  # as transformers' TimmWrapper
    alone = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    alone.load_state_dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(("pooling", "layer_scale"), [("mean", 0.1), ("cls", None)])
@torch.no_grad()
def test_classifiers_and_back(pooling, layer_scale, variant, convert, randomise):
    model = build_classifier(
        variant, num_classes=5, pooling=pooling, layer_scale=layer_scale, img_size=48
    )
    randomise(model).eval()
    _, folder = convert(dict(model.state_dict()))
    images = torch.randn(2, 3, 48, 48)
    peer = _same(folder, model(images), images)
    assert peer.num_classes == 5
    assert peer.patch_embed.img_size == (48, 48)
    for source in (folder, f"local-dir:{folder}", folder / "model.safetensors"):
        _, back = convert(source, "--overwrite", to="official", output="back.pth")
        again = load_classifier(back)
        torch.testing.assert_close(again(images), model(images), **TOLERANCE)


@torch.no_grad()
def test_a_linear_probe_is_one_layer(variant, convert, randomise):
    model = randomise(build_linear_probe(variant, num_classes=5))
    norm = model.head[0]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2.0)
    model.eval()
    text, folder = convert(dict(model.state_dict()))
    assert "put the batch norm of the linear probe into its linear layer" in text
    images = torch.randn(2, 3, 32, 32)
    _same(folder, model(images), images)


@torch.no_grad()
def test_vision_tower_of_clip(variant, convert, randomise):
    """From our file, from open_clip's folder, and alone as `eva_clip_psz14_vision_enc.pt`."""
    model = randomise(build_eva_clip(variant, "debug", embed_dim=16)).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model.encode_image(images)
    text, folder = convert(dict(model.state_dict()))
    assert "left out (outside the ViT): text." in text
    peer = _same(folder, expected, images)
    assert peer.global_pool == "token"
    _, open_clip_folder = convert(dict(model.state_dict()), to="open-clip", output="of_open_clip")
    _same(convert(open_clip_folder, output="from_open_clip")[1], expected, images)
    _same(convert(dict(model.visual.state_dict()), output="tower")[1], expected, images)


@pytest.mark.parametrize("name", ["classify_mean_fc_norm", "classify_eva_l_style", "clip"])
@torch.no_grad()
def test_timm_gives_the_official_outputs(name, convert, monkeypatch):
    sizes = variants.Variant(14, 70, 32, 4, 2, 80, "qv")
    monkeypatch.setitem(variants.VARIANTS, "eva_golden", sizes)
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    _, folder = convert(state)
    peer = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    expected = tensors["output.image_features" if name == "clip" else "output.logits"]
    torch.testing.assert_close(peer(tensors["input.image"]), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_trunks_without_a_norm_and_of_segmentors(variant, convert, randomise):
    vit = randomise(variants.build_vit(variant, final_norm=False)).eval()
    images = torch.randn(2, 3, 32, 32)
    _same(convert(dict(vit.state_dict()))[1], vit(images)[:, 1:].mean(1), images)
    state = {f"backbone.{name}": value for name, value in vit.state_dict().items()}
    state |= {"backbone.level_embed": torch.ones(3, 32), "decode_head.x.weight": torch.ones(3)}
    text, folder = convert(state, output="segmentor")
    assert "level_embed" in text
    vit.pos_embed[:, 0] = 0  # the class token has no position there
    _same(folder, vit(images)[:, 1:].mean(1), images)
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == list(variants.IMAGENET_MEAN)


def test_a_run_with_its_classes_and_pixels(convert, tmp_path, randomise):
    model = randomise(build_classifier("eva_debug", num_classes=3, img_size=32)).eval()
    step = tmp_path / "run" / run_checkpoint.CHECKPOINTS / "step_00000001"
    step.mkdir(parents=True)
    notes = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1], "crop_pct": 0.8}
    names = {"class_names": ["nought", "one", "four"]}
    save_weights(dict(model.state_dict()), step / run_checkpoint.WEIGHTS, {"data": notes} | names)
    run_checkpoint.mark_complete(step)
    _, folder = convert(tmp_path / "run")
    peer = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert peer.pretrained_cfg["label_names"] == names["class_names"]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=peer))
    picture = Image.radial_gradient("L").convert("RGB").crop((0, 30, 200, 256))
    own = evaluation_transform(32, **notes)
    torch.testing.assert_close(transform(picture), own(picture), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_the_same_names_and_shapes_as_timm_at_the_published_sizes():
    """ViT-g and EVA-L on the meta device: every name of timm that EVA-01 has."""
    from eva_command.timm_folder import to_timm

    names = set()
    for variant, side, pooling in (
        ("eva_g_patch14", 224, "mean"),
        ("eva_g_patch14", 336, "mean"),
        ("eva_g_patch14", 560, "mean"),
        ("eva_g_patch14", 224, "cls"),
        ("eva_l_patch14", 196, "mean"),
        ("eva_l_patch14", 336, "mean"),
    ):
        with torch.device("meta"):
            ours = build_classifier(variant, num_classes=1000, pooling=pooling, img_size=side)
            config, weights, _ = to_timm(ours.state_dict(), name="a file")
            peer = timm.create_model(config["architecture"], img_size=side)
        names.add(config["architecture"])
        assert "model_args" not in config
        if pooling == "cls":
            peer.reset_classifier(1000)
        assert _shapes(weights) == _shapes(peer.state_dict())
    assert names == {
        *(f"eva_giant_patch14_{side}" for side in ("224", "336", "560", "clip_224")),
        *(f"eva_large_patch14_{side}" for side in (196, 336)),
    }


def _shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}
