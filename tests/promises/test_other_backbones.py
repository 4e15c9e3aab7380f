"""`--backbone NAME`: another plain ViT in a recipe, trained, continued and scored."""

from functools import partial
from typing import Any

import pytest
import torch

from eva_backbone import build_vit, load_pretrained, load_vit
from eva_backbone.layer_decay import param_groups_layer_decay
from eva_backbone.variants import FAMILIES, VARIANTS, dense_arguments, detector_arguments
from eva_classification.features import FeatureExtractor
from eva_classification.inference.predictor import Predictor
from eva_classification.models import build_classifier, build_linear_probe
from eva_engine.checkpoints.files import save_weights
from eva_openmmlab.adapter_backbone import EVAViTAdapter
from eva_openmmlab.backbone import EVAViT
from eva_video.model.classifier import build_video_classifier, load_video_classifier

FAMILY_TWINS = [f"{family}_debug" for family in FAMILIES]

NAMES = {"detection": "dinov3", "mmdetection": "pe", "segmentation": "eva02"}


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("detection", "dinov3_debug"),
        pytest.param("mmdetection", "pe_core_debug", marks=pytest.mark.slow),
        pytest.param("segmentation", "eva02_debug", marks=pytest.mark.slow),
        ("classification", "dinov2_reg_debug"),
        pytest.param("clip", "dinov3_debug", marks=pytest.mark.slow),
        pytest.param("pretrain", "dinov3_debug", marks=pytest.mark.slow),
        pytest.param("video", "dinov3_debug", marks=pytest.mark.slow),
    ],
)
def test_another_plain_vit_in_a_recipe(trainers, run, tmp_path, name, backbone):
    trainer = trainers(name)
    words = ["--backbone", backbone]
    if name not in NAMES:
        words += ["--run.epochs", 1]
    run(*trainer.command(tmp_path / "run", *words, steps=2, period=2), **trainer.variables)
    weights = trainer.weights(tmp_path / "run", steps=2 if name in NAMES else None)
    marks = {"dinov2": "register_tokens", "pe": "norm_pre", "eva02": "rope_embed.periods"}
    mark = marks.get(backbone.partition("_")[0], "rope_embed.periods")
    assert any(mark in key for key in weights)
    assert not any("rel_pos" in key for key in weights)
    assert (tmp_path / "run/report.html").is_file()
    if name == "classification":  # the file says what it is
        vit = load_vit(tmp_path / "run")
        assert vit(torch.zeros(1, 3, 128, 128)).isfinite().all()
    if name == "clip":
        data = trainer.train[trainer.train.index("--data.zero-shot") + 1]
        command = ["eva", "clip", "evaluate", "--weights", tmp_path / "run", "--data", data]
        run(*command, "--device", "cpu", "--output", tmp_path / "scores")
        assert (tmp_path / "scores/report.html").is_file()


@pytest.mark.parametrize("name", FAMILY_TWINS)
def test_features_are_of_pixels_that_the_family_has_seen(name, tmp_path):
    model, family = build_vit(name, img_size=32, **GLOBAL), FAMILIES[VARIANTS[name].family]
    save_weights(model.state_dict(), tmp_path / "weights.safetensors")
    extract = FeatureExtractor.from_weights(tmp_path / "weights.safetensors", device="cpu")
    dense = name == "sam3_debug"  # the trunk of a detector
    assert extract.mean == (family.dense_mean if dense else family.mean)
    assert extract.std == (family.dense_std if dense else family.std)


@pytest.mark.parametrize("name", ["detection", "segmentation", "classification"])
def test_an_unknown_backbone_names_close_ones(trainers, call_eva, fails, tmp_path, name):
    trainer = trainers(name)
    command = trainer.command(tmp_path / "run", "--backbone", "dinov3_l14")
    fails(call_eva(*command, **trainer.variables), "dinov3_l14", "dinov3_l16")
    assert not (tmp_path / "run").exists()


SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48}
GLOBAL: dict[str, Any] = {"window_size": 0, "global_attn_indexes": ()}  # also SAM 3's


def _detector(name, **more):
    arguments = detector_arguments(name, img_size=64, window_size=4, **more)
    return EVAViT(**arguments | SIZES | {"global_attn_indexes": (1,)}, out_channels=8)


def _adapter(name):
    sizes = {"patch_size": 16, "img_size": 64, "pretrain_img_size": 64}
    more = {"conv_inplane": 8, "deform_num_heads": 2, "norm_cfg": {"type": "BN"}}
    return EVAViTAdapter(**dense_arguments(name) | SIZES | sizes | {"depth": 4}, **more)


TRUNKS = {
    "detector": _detector,
    "detector that keeps prefix tokens": partial(_detector, prefix_tokens="keep"),
    "segmentor": lambda name: EVAViT(**dense_arguments(name) | SIZES, out_channels=8),
    "adapter": _adapter,
    "classifier": partial(build_classifier, num_classes=3, **SIZES | GLOBAL),
    "video": partial(build_video_classifier, num_classes=3, frames=2, **SIZES | GLOBAL),
}


@pytest.mark.parametrize("name", FAMILY_TWINS)
@pytest.mark.parametrize(
    "trunk", [pytest.param(t, marks=[pytest.mark.slow] * (t == "adapter")) for t in TRUNKS]
)
def test_all_that_is_trained_of_each_family_has_a_gradient(trunk, name):
    """Several processes would wait for one that never comes."""
    assert VARIANTS[name].family == name.removesuffix("_debug")
    if name == "eva_debug" and "prefix" in trunk:
        pytest.skip("EVA-01's detectors have no tokens before the patches")
    model = TRUNKS[trunk](name).train()
    outputs = model(torch.randn(2, *(2,) * (trunk == "video"), 3, 64, 64))
    maps = outputs if isinstance(outputs, tuple) else [outputs]
    sum(level.square().mean() for level in maps).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert not [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    groups = param_groups_layer_decay(model, depth=4, lr=1.0, weight_decay=0, layer_decay=0.7)
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_a_class_token_that_is_not_there_is_not_taken():
    for build in (build_classifier, build_linear_probe):
        with pytest.raises(ValueError, match="mean"):
            build("siglip2_debug", num_classes=3, pooling="cls")


@pytest.mark.parametrize("name", FAMILY_TWINS)
@torch.no_grad()
def test_a_classifier_of_videos_is_read_by_its_file(name, tmp_path):
    torch.manual_seed(0)
    model = build_video_classifier(name, num_classes=3, frames=2, img_size=32, **GLOBAL).eval()
    torch.nn.init.normal_(model.head.weight)
    notes = {"model": {"frames": 2, "image_size": 32}}
    save_weights(model.state_dict(), tmp_path / "model.safetensors", notes)
    again = load_video_classifier(tmp_path / "model.safetensors")
    clips = torch.randn(2, 2, 3, 32, 32)
    assert (again.frames, again.img_size) == (2, 32)
    torch.testing.assert_close(again(clips), model(clips))
    assert load_vit(tmp_path / "model.safetensors", window_size=0)(clips[:, 0]).isfinite().all()
    images = build_vit(name, img_size=32, **GLOBAL)
    save_weights(images.state_dict(), tmp_path / "images.safetensors")
    new = {"allow_missing": ("head", "fc_norm"), "allow_skipped": ("norm.", "mask_token")}
    load_pretrained(model, tmp_path / "images.safetensors", **new)


TWINS = {"dinov3_debug": 512, "eva02_debug": 344}  # widths of the MLP


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("build", [build_linear_probe, build_classifier])
def test_classifiers_are_exported(build, name, tmp_path):
    torch.manual_seed(0)
    model = build(name, num_classes=3, img_size=32)
    save_weights(model.state_dict(), tmp_path / "m.safetensors", {"model": {"image_size": 32}})
    predictor = Predictor.from_weights(tmp_path / "m.safetensors", classes=["a", "b", "c"])
    predictor.export(tmp_path / "m.onnx", tolerance=1e-5)


@pytest.mark.parametrize(
    "backbone", ["dinov3_debug", pytest.param("eva02_debug", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("detection", marks=pytest.mark.slow),
        pytest.param("mmdetection", marks=pytest.mark.slow),
        pytest.param("segmentation", marks=pytest.mark.slow),
        "classification",
    ],
)
@pytest.mark.slow
def test_adapters_of_a_run_are_merged_exported_and_go_on(
    trainers, run, demo, tmp_path, name, backbone
):
    """At the sizes of the twins, by which a file is recognised."""
    trainer, own = trainers(name), name == "detection"
    option = "train.init_checkpoint=" if own else "--load-from "
    words, stem = ["--backbone", backbone], "model.backbone." + "net." * own
    if name in NAMES:
        sizes = {"embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_dim": TWINS[backbone]}
        words += [f"{stem}{key}={value}" for key, value in sizes.items()]
    else:
        words, option = [*words, "--run.epochs", 1], "--model.init-checkpoint "

    def train(output, *more):
        command = trainer.command(output, *words, *more, steps=2, period=2)
        run(*command, **trainer.variables)

    whole, output, merged = (tmp_path / part for part in ("whole", "run", "merged.safetensors"))
    train(whole)
    train(output, "--lora", 4, *f"{option}{whole}".split())
    run("eva", "convert", output, "--merge-lora", "--output", merged)
    train(tmp_path / "more", *f"{option}{merged}".split())
    photos = demo("coco") / "coco/val"
    known = output if "detection" in name else merged  # the run has windows, which no file shows
    words = ("features", photos, "--weights", known, "--processes", 0, "--device", "cpu")
    run("eva", "batch", *words, "--output", tmp_path / "features")
    if name in NAMES:
        (image, *_) = sorted(photos.iterdir())
        more = ("--image", image, "--score-threshold", 0.01) if "detection" in name else ()
        run("eva", "export", output, *more, "--output", tmp_path / "model.onnx")
        assert (tmp_path / "model.onnx").is_file()
