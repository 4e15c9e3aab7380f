"""Folders for timm: written from files and runs of every task, and read by timm alone."""

import json
import re
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from eva_backbone import load_vit, variants
from eva_backbone.checkpoints import families
from eva_backbone.checkpoints.from_weights import load_pooled
from eva_backbone.checkpoints.registry import HOSTED_FILES
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


def _load_as_reported(report):
    """Run the expression that the report of a conversion ends with."""
    expression = report.partition("load with ")[2]
    return eval(expression, {m.__name__: m for m in (open_clip, timm, transformers)})


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
    _, folder = convert(dict(model.state_dict()))
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
    torch.testing.assert_close(_load_as_reported(text).eval()(images), expected, **TOLERANCE)
    text, open_clip_folder = convert(
        dict(model.state_dict()), to="open-clip", output="of_open_clip"
    )
    assert _load_as_reported(text)[0].visual.image_size == (32, 32)
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
            config, weights, _ = to_timm(ours.state_dict(), Path("a file"))
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({file.variant for file in HOSTED_FILES.values()}))
def test_names_and_shapes_of_other_families_at_the_published_sizes(name):
    from eva_command.timm_folder import to_timm

    with torch.device("meta"):
        config, weights, _ = to_timm(variants.build_vit(name).state_dict(), Path("a file"))
        peer = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
        usual = timm.create_model(config["architecture"], num_classes=0)
    assert _shapes(weights) == _shapes(peer.state_dict())
    assert (usual.embed_dim, len(usual.blocks)) == tuple(
        config["model_args"][part] for part in ("embed_dim", "depth")
    )


OTHERS = [  # family, bias, what differs from it
    ("eva02", "qv", {}),
    ("eva02", "qv", {"mlp": "swiglu"}),
    ("eva02", "qv", {"attn_norm": True}),
    ("dinov2", "qkv", {}),
    ("dinov2", "qkv", {"mlp": "swiglu"}),
    ("dinov2_reg", "qkv", {}),
    ("dinov3", "qv", {}),
    ("dinov3", "qv", {"mlp": "swiglu"}),
    ("dinov3", "none", {"mlp": "swiglu"}),
    ("pe_core", "qkv", {}),
    ("pe_core", "qkv", {"extra_tokens": (), "rotary": {"x_first": True}}),
    ("pe_spatial", "qkv", {}),
    ("pe_lang", "qkv", {}),
    ("siglip2", "qkv", {}),
    ("tipsv2", "qkv", {}),
    ("radio_v3", "qkv", {}),
    ("radio_v4", "qkv", {}),
]


@pytest.fixture(params=OTHERS, ids=lambda p: "-".join([p[0], p[1], *p[2]]))
def other(request, monkeypatch):
    """Name of a tiny ViT of another family, as one of the table."""
    family, bias, more = request.param
    sizes = variants.Variant(8, 32, 64, 2, 2, 128, bias, family, more)
    monkeypatch.setitem(variants.VARIANTS, "small_other", sizes)
    if bias == "none":  # which DINOv3-7B alone has
        monkeypatch.setattr(families, "_WIDTH_OF_7B", 64)
    return "small_other"


def _other_trunk(name, randomise):
    size = (
        {"pretrain_img_size": 64} if "pretrain_img_size" in variants.variant_arguments(name) else {}
    )
    vit = randomise(variants.build_vit(name, **size)).eval()
    return vit, torch.randn(2, 3, 32, 32)


@torch.no_grad()
def test_other_families(other, convert, randomise):
    vit, images = _other_trunk(other, randomise)
    _, folder = convert(dict(vit.state_dict()))
    tokens = vit(images)
    cls = vit.cls_token is not None and hasattr(vit.norm, "weight")
    peer = _same(
        folder, tokens[:, 0] if cls else tokens[:, vit.num_prefix_tokens :].mean(1), images
    )
    torch.testing.assert_close(peer.forward_features(images), tokens, **TOLERANCE)
    torch.testing.assert_close(load_vit(folder)(images), tokens, **TOLERANCE)
    _, back = convert(folder, to="official", output="back.pth")
    torch.testing.assert_close(load_vit(back)(images), tokens, **TOLERANCE)


@pytest.mark.parametrize("name", ["dinov3_debug", "pe_core_debug"])
@torch.no_grad()
def test_a_classifier_of_features_that_vary_little_at_the_size_of_its_training(
    name, convert, tmp_path
):
    """The family's epsilon is in the norm of its pooled features, too."""
    model = build_classifier(name, num_classes=5, img_size=48)
    torch.nn.init.normal_(model.head.weight)
    file = tmp_path / "model.safetensors"
    save_weights(model.state_dict(), file, {"model": {"image_size": 48}})
    _, folder = convert(file)
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["input_size"][1] == 48
    again = load_classifier(folder / "model.safetensors")
    assert again.img_size == load_pooled(file)[0].image_size == 48
    images = torch.randn(2, 3, 48, 48)
    _same(folder, model.eval()(images), images)
    torch.testing.assert_close(again(images), model(images))


@pytest.mark.parametrize("other", [OTHERS[i] for i in (3, 4, 5, 6, 7, 8, 13)], indirect=True)
@torch.no_grad()
def test_transformers(other, convert, randomise):
    vit, images = _other_trunk(other, randomise)
    text, folder = convert(dict(vit.state_dict()), to="transformers")
    peer = _load_as_reported(text).float().eval()
    torch.testing.assert_close(peer(images).last_hidden_state, vit(images), **TOLERANCE)
    torch.testing.assert_close(load_vit(folder)(images), vit(images), **TOLERANCE)
    _, back = convert(folder, to="timm", output="from_transformers")
    cls = vit.cls_token is not None
    _same(back, vit(images)[:, 0] if cls else vit(images).mean(1), images)


def _small(monkeypatch, family, bias="qkv"):
    sizes = variants.Variant(8, 32, 64, 2, 2, 128, bias, family)
    monkeypatch.setitem(variants.VARIANTS, "small_other", sizes)
    return "small_other"


@pytest.mark.parametrize(
    ("family", "architecture"),
    [("pe_core", "vit_pe_core_base_patch16_224"), ("siglip2", "vit_base_patch16_siglip_256")],
)
@torch.no_grad()
def test_attention_pooling_of_a_source_is_left_out(
    family, architecture, convert, monkeypatch, randomise
):
    """It is no classifier, nor is the projection behind it."""
    _small(monkeypatch, family)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    more = {"ref_feat_shape": 4} if family == "pe_core" else {"act_layer": "gelu_tanh"}
    peer = timm.create_model(architecture, num_classes=16, mlp_ratio=2, **sizes, **more)
    randomise(peer).eval()
    _, folder = convert(dict(peer.state_dict()))
    images = torch.randn(2, 3, 32, 32)
    tokens = peer.forward_features(images)
    _same(folder, tokens[:, 0] if family == "pe_core" else tokens.mean(1), images)


@torch.no_grad()
def test_a_folder_of_transformers_pools_by_its_class_token(convert, monkeypatch, randomise):
    """The mask token that it has is of no masked-image model of this toolkit."""
    name = _small(monkeypatch, "dinov3", "qv")
    vit = randomise(variants.build_vit(name)).eval()
    _, folder = convert(dict(vit.state_dict()), to="transformers")
    images = torch.randn(2, 3, 32, 32)
    pooled, _ = load_pooled(folder)
    torch.testing.assert_close(pooled.pool(pooled.vit(images)), vit(images)[:, 0], **TOLERANCE)


@torch.no_grad()
def test_rounded_periods_are_reported(convert, monkeypatch, randomise):
    name = _small(monkeypatch, "dinov3", "qv")
    state = randomise(variants.build_vit(name)).eval().state_dict()
    state["rope_embed.periods"] = state["rope_embed.periods"].bfloat16().float()
    for to in ("timm", "transformers"):
        assert "rotary periods" in convert(dict(state), to=to, output=to)[0]


@pytest.mark.parametrize(
    ("family", "to", "arguments"),
    [
        ("sam3", "timm", {"window_size": 0, "global_attn_indexes": ()}),
        ("eva02", "transformers", {}),
        ("eva", "transformers", {}),
        ("dinov2", "transformers", {"final_norm": False}),
        ("dinov3", "timm", {"extra_tokens": (), "num_registers": 0}),
    ],
)
def test_what_cannot_be_written_is_one_error(
    family, to, arguments, convert, monkeypatch, tmp_path, capsys
):
    name = _small(monkeypatch, family, "qv" if family in ("eva", "eva02", "dinov3") else "qkv")
    headed = "final_norm" in arguments
    state = variants.build_vit(name, **arguments).state_dict()
    with pytest.raises(SystemExit):
        convert(state | ({"head.weight": torch.ones(3, 64)} if headed else {}), to=to)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "folder").exists()


@torch.no_grad()
def test_an_official_file_with_two_towers(convert, monkeypatch, randomise):
    """Perception Encoder's, whose names are those of open_clip's own ViT."""
    vit = randomise(variants.build_vit(_small(monkeypatch, "pe_core"))).eval()
    ends = {
        "patch_embed.proj": "conv1",
        "pos_embed": "positional_embedding",
        "cls_token": "class_embedding",
        "norm_pre": "ln_pre",
        ".norm": ".ln_",
        "blocks": "transformer.resblocks",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    state = {}
    for name, value in vit.state_dict().items():
        for ours, theirs in ends.items():
            name = name.replace(ours, theirs)
        state[f"visual.{re.sub('^norm', 'ln_post', name)}"] = value
    state["visual.positional_embedding"] = state["visual.positional_embedding"][0]
    state["visual.class_embedding"] = state["visual.class_embedding"][0, 0]
    del state["visual.rope_embed.periods"]
    state |= {"visual.attn_pool.probe": torch.ones(1, 1, 64), "visual.proj": torch.ones(64, 16)}
    state |= {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())}
    images = torch.randn(2, 3, 32, 32)
    _same(convert(state)[1], vit(images)[:, 0], images)


def test_weights_of_bands_are_refused(tmp_path, capsys):
    bands = {name: [0.0] * 3 for name in ("low", "high", "mean", "std", "show")}
    model, file = (
        build_classifier("eva_debug", num_classes=3, img_size=64),
        tmp_path / "a.safetensors",
    )
    save_weights(model.state_dict(), file, {"bands": bands})
    with pytest.raises(SystemExit):
        main([str(file), "--to", "timm", "--output", str(tmp_path / "folder")])
    assert "a.safetensors" in capsys.readouterr().err
