"""EVA-CLIP in open_clip: its `EVA01-g-14` through timm, and its own ViT."""

import pytest
import torch
from open_clip.loss import ClipLoss

from eva_backbone.checkpoints.loading import load_pretrained
from eva_backbone.checkpoints.reading import Weights
from eva_contrastive.model.open_clip_form import to_official, to_trunk, to_vit

FORMS = {"trunk": to_trunk, "vit": to_vit}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_open_clip_loads_ours_strictly_with_equal_features(
    kind, sigmoid, make_clip, make_peer, assert_same_features
):
    ours, theirs = make_clip(sigmoid=sigmoid), make_peer(kind, sigmoid=sigmoid)
    theirs.load_state_dict(FORMS[kind](ours.state_dict()), strict=True)
    assert_same_features(ours, theirs)


def test_a_training_step_of_open_clip_gives_our_gradients(make_clip, make_peer, inputs):
    ours, theirs = make_clip(), make_peer("trunk")
    theirs.load_state_dict(to_trunk(ours.state_dict()), strict=True)
    gradients = []
    for each in (ours, theirs):
        image_features, text_features, scale = each.train()(*inputs)[:3]
        ClipLoss()(image_features, text_features, scale.squeeze()).backward()
        gradients.append({name: value.grad for name, value in each.named_parameters()})
    own = to_trunk(gradients[0])
    assert own.keys() == gradients[1].keys()
    for name, expected in own.items():
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(("sigmoid", "prefix"), [(False, ""), (True, "module.")])
def test_ours_loads_open_clips_strictly_with_equal_features(
    kind, sigmoid, prefix, make_clip, make_peer, assert_same_features, randomise
):
    ours, theirs = make_clip(sigmoid=sigmoid), randomise(make_peer(kind, sigmoid=sigmoid), std=0.1)
    stored = {prefix + name: value for name, value in theirs.state_dict().items()}
    weights = to_official(stored)
    assert weights["text.logit_scale"].shape == ()
    own = {n: v.reshape(1) if n.startswith("text.logit_") else v for n, v in weights.items()}
    load_pretrained(ours, Weights("open_clip", own), complete=True)
    assert_same_features(ours, theirs)


@pytest.mark.parametrize("vision", [{"qkv_bias": "qkv"}, {"layer_scale": 0.5}])
def test_other_kinds_of_blocks(vision, make_clip, make_peer, assert_same_features):
    """One bias of queries, keys and values (EVA-L); residual scales."""
    ours = make_clip(**vision)
    scales = {"ls_init_value": 0.1} if "layer_scale" in vision else {}
    theirs = make_peer("vit", **scales)
    theirs.load_state_dict(to_vit(ours.state_dict()), strict=True)
    assert_same_features(ours, theirs)
    back = make_clip(**vision)
    load_pretrained(back, Weights("back", _shaped(to_official(theirs.state_dict()))), complete=True)
    assert_same_features(back, theirs)


def _shaped(weights):
    return {n: v.reshape(1) if n.startswith("text.logit_") else v for n, v in weights.items()}


def test_files_of_the_older_class_of_open_clip(make_clip, make_peer, assert_same_features):
    """Its text tower stands beside the vision tower, not in `text`."""
    ours, theirs = make_clip(), make_peer("vit")
    theirs.load_state_dict(to_vit(ours.state_dict()))
    stored = {name.removeprefix("text."): v for name, v in theirs.state_dict().items()}
    back = make_clip()
    load_pretrained(back, Weights("older", _shaped(to_official(stored))), complete=True)
    assert_same_features(back, ours)
