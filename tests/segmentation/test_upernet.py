"""The light segmentor around `EVAViT`: its groups of parameters, and other classes."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

from eva_segmentation.model.weights import load_segmentor

DEPTH, PEAK, DECAY = 2, 1e-3, 0.5  # blocks, learning rate, layer decay
HEADS = ("decode_head", "auxiliary_head")


@pytest.fixture
def make_model(tiny):
    """Function: the small segmentor for a number of classes, with one or more auxiliary heads."""

    def make(classes, auxiliary=1):
        model = tiny().model
        for head in HEADS:
            model[head].num_classes = classes
        if auxiliary > 1:
            model.auxiliary_head = [model.auxiliary_head] * auxiliary
        return MODELS.build(model)

    return make


@pytest.fixture
def groups_of():
    """Function: groups of the optimizer of a model, by settings for the layers."""

    def make(model, **settings):
        optimizer = dict(type="AdamW", lr=PEAK, weight_decay=0.05)
        wrapper = dict(type="OptimWrapper", optimizer=optimizer)
        config = dict(type="EVALayerDecayConstructor", optim_wrapper_cfg=wrapper, **settings)
        return OPTIM_WRAPPER_CONSTRUCTORS.build(ConfigDict(config))(model).optimizer.param_groups

    return make


def settings_by_name(model, groups):
    """Name -> learning rate and weight decay; each parameter is in one group."""
    found = {
        id(value): (group["lr"], group["weight_decay"])
        for group in groups
        for value in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found)
    return {name: found[id(value)] for name, value in model.named_parameters()}


def test_each_layer_of_the_backbone_has_its_rate(make_model, groups_of):
    model = make_model(5)
    groups = groups_of(model, paramwise_cfg=dict(layer_decay=DECAY, official_head_rule=False))
    settings = settings_by_name(model, groups)
    assert len(groups) == 2 * (DEPTH + 2)  # each layer with and without decay
    assert {group["lr_scale"] for group in groups} == {1.0, DECAY, DECAY**2, DECAY**3}
    layers = set()
    for name, (lr, weight_decay) in settings.items():
        part = name.removeprefix("backbone.net.")
        if part.startswith("blocks."):
            layer = int(part.split(".")[1]) + 1
        else:
            first = part.startswith(("cls_token", "pos_embed", "patch_embed."))
            layer = 0 if first else DEPTH + 1
        layers.add(layer)
        plain = dict(model.named_parameters())[name].ndim == 1 or name.endswith(".bias")
        assert lr == pytest.approx(PEAK * DECAY ** (DEPTH + 1 - layer)), name
        assert weight_decay == (0.0 if plain else 0.05), name
    assert layers == set(range(DEPTH + 2))
    assert (
        settings["backbone.net.patch_embed.proj.weight"][0]
        < settings["backbone.net.blocks.0.mlp.fc1.weight"][0]
    )


@pytest.mark.parametrize("settings", [{}, {"paramwise_cfg": None}, {"paramwise_cfg": {}}])
def test_without_settings_vectors_are_not_decayed_either(settings, make_model, groups_of):
    model = make_model(5)
    for name, (lr, decay) in settings_by_name(model, groups_of(model, **settings)).items():
        plain = dict(model.named_parameters())[name].ndim == 1 or name.endswith(".bias")
        assert (lr, decay) == (PEAK, 0.0 if plain else 0.05), name


@pytest.mark.parametrize("auxiliary", [1, 2])
def test_classifiers_of_other_classes_start_from_scratch_and_all_else_is_the_files(
    auxiliary, make_model, randomise, tmp_path
):
    source, target = randomise(make_model(7, auxiliary)), make_model(5, auxiliary)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "seven.pth")
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_segmentor(target, tmp_path / "seven.pth")
    heads = ["decode_head", "auxiliary_head"]
    if auxiliary > 1:
        heads = ["decode_head", "auxiliary_head.0", "auxiliary_head.1"]
    anew = {f"{head}.conv_seg.{kind}" for head in heads for kind in ("weight", "bias")}
    assert set(report.missing) == anew
    assert all(reason.startswith("initialised from scratch") for reason in report.missing.values())
    for name, value in target.state_dict().items():
        expected = fresh if name in anew else source.state_dict()
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_an_evaluation_refuses_classifiers_of_other_classes(make_model, tmp_path):
    torch.save({"state_dict": make_model(7).state_dict()}, tmp_path / "seven.pth")
    target = make_model(5)
    before = target.decode_head.conv_seg.weight.clone()
    with pytest.raises(ValueError, match=r"_head\.conv_seg\.(weight|bias) \(7,"):
        load_segmentor(target, tmp_path / "seven.pth", complete=True)
    torch.testing.assert_close(target.decode_head.conv_seg.weight, before, rtol=0, atol=0)
