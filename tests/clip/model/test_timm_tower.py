"""Our tower inside open_clip and timm, beside timm's own."""

import open_clip
import pytest
import timm
import torch
from open_clip.loss import ClipLoss
from timm.models import group_parameters
from torch import nn

import eva_contrastive.model.timm_tower as timm_tower
from eva_contrastive.model.open_clip_form import to_trunk
from eva_contrastive.model.timm_tower import TimmTower, timm_name

NAME = timm_name("eva_debug")


@pytest.fixture
def both(make_clip, make_peer):
    """open_clip models with our tower and with timm's, and our model; all of the same weights."""
    model = make_clip()
    weights = to_trunk(model.state_dict())
    ours, theirs = make_peer("ours"), make_peer("trunk")
    for peer in (ours, theirs):
        peer.load_state_dict(weights, strict=True)
    assert isinstance(ours.visual.trunk, TimmTower)
    return ours, theirs, model


def test_open_clip_builds_our_tower_with_the_exact_count(monkeypatch):
    timm_tower.register()
    for name, count in (("EVA01-g-14-toolkit", 1_136_435_841), ("EVA01-g-14-plus-toolkit", None)):
        with torch.device("meta"):
            model = open_clip.create_model(name, device="meta")
            stock = open_clip.create_model(name.removesuffix("-toolkit"), device="meta")
        assert isinstance(model.visual.trunk, TimmTower)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        assert shapes == {key: value.shape for key, value in stock.state_dict().items()}
        assert count in (None, sum(value.numel() for value in model.parameters()))
        assert model.visual.image_size == (224, 224)


def test_features_are_those_of_stock_open_clip(both, assert_same_features):
    ours, theirs, model = both
    assert_same_features(ours, theirs)
    assert_same_features(ours, model)


def test_a_training_step_of_open_clip_gives_our_gradients(both, pairs):
    ours, theirs, model = both
    names = dict(model.named_parameters())
    gradients = []
    for each in (ours, theirs, model):
        image_features, text_features, scale = each.train()(*pairs)[:3]
        loss = ClipLoss()(image_features, text_features, scale.squeeze())
        loss.backward()
        gradients.append({name: value.grad for name, value in each.named_parameters()})
    own = to_trunk({name: gradients[2][name] for name in names})
    assert own.keys() == gradients[0].keys() == gradients[1].keys()
    for name, expected in own.items():
        assert expected.abs().max() > 0, name
        for found in gradients[:2]:
            torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("groups", range(5))
@pytest.mark.filterwarnings("ignore:Importing from timm.models.helpers is deprecated")
def test_locking_leaves_what_stock_open_clip_leaves(groups, both):
    trained = []
    for model in both[:2]:
        model.lock_image_tower(unlocked_groups=groups)
        trained.append({n for n, value in model.visual.named_parameters() if value.requires_grad})
    assert trained[0] == trained[1]
    assert len(trained[0]) == (0, 2, 17, 30, 34)[groups]


def test_layers_are_total_and_as_timm_counts_them(both):
    towers = [model.visual.trunk for model in both[:2]]
    ours, theirs = (group_parameters(t, t.group_matcher(), reverse=True) for t in towers)
    assert ours == theirs
    assert set(ours.values()) == {0, 1, 2, 3}
    assert towers[0].no_weight_decay() == towers[1].no_weight_decay() - {"reg_token"}


def test_another_size_of_pictures(both, pairs):
    images = nn.functional.interpolate(pairs[0], size=56)
    ours = both[0]
    with torch.no_grad():
        on_the_fly = ours.encode_image(images)
        ours.visual.set_input_size(56)
        assert ours.visual.trunk.pos_embed.shape == (1, 17, 32)
        assert ours.visual.trunk.img_size == 56
        torch.testing.assert_close(ours.encode_image(images), on_the_fly)
    for size in ((28, 56), 47, 0):
        with pytest.raises(ValueError, match="square"):
            ours.visual.trunk.set_input_size(size)
    with pytest.raises(ValueError, match="patch_size is 16"):
        ours.visual.trunk.set_input_size(28, 16)


def test_as_a_timm_model():
    tower = timm.create_model(NAME, num_classes=7, img_size=32)
    facts = timm.data.resolve_model_data_config(tower)
    assert facts["input_size"] == (3, 32, 32)
    assert facts["interpolation"] == "bicubic"
    tower.reset_classifier(5)
    assert tower(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert tower.get_classifier().out_features == tower.num_classes == 5
    tokens = tower.forward_features(torch.zeros(1, 3, 32, 32))
    assert tower.forward_head(tokens, pre_logits=True).shape == (1, tower.num_features)
    assert timm.get_pretrained_cfg(NAME).first_conv == "patch_embed.proj"


def test_refusals():
    for asked, named in ({"pretrained": True}, "pretrained=True"), ({"global_pool": "avg"}, "avg"):
        with pytest.raises(ValueError, match=named):
            timm.create_model(NAME, **asked)
    with pytest.raises(TypeError, match="in_chans"):
        timm.create_model(NAME, in_chans=1)
