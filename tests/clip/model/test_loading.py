"""Files of EVA-CLIP by name, and the first weights of a training."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from eva_contrastive.model.eva_clip import build_eva_clip, tokenize
from eva_contrastive.model.loading import initialise, load_eva_clip, load_vision_tower

IMAGES = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokens():
    return tokenize(["a dog", "two of them"], 16)


@pytest.fixture
def save(tmp_path):
    def write(state, name="weights.pt"):
        torch.save(state, tmp_path / name)
        return tmp_path / name

    return write


def _same_features(model, other, tokens, images=IMAGES):
    assert torch.equal(other.encode_image(images), model.encode_image(images))
    assert torch.equal(other.encode_text(tokens), model.encode_text(tokens))
    assert torch.equal(other.text.logit_scale, model.text.logit_scale)


def test_the_official_file_by_name(official_clip, tokens, caplog, count):
    caplog.set_level(logging.INFO)
    model = load_eva_clip("eva_clip_psz14")
    assert not model.training
    assert count(model) == count(official_clip)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    _same_features(official_clip, model, tokens)
    assert f"loaded {len(model.state_dict())} tensors from eva_clip_psz14.pt" in caplog.text
    assert "not used" not in caplog.text
    larger = load_eva_clip("eva_clip_psz14.pt", image_size=56)
    assert larger.image_size == 56
    assert larger.encode_image(torch.randn(1, 3, 56, 56)).shape == (1, 16)
    assert model.text.attn_mask.device.type == "cpu"


@pytest.mark.parametrize("sigmoid", [False, True])
def test_weights_of_a_run(make_clip, tmp_path, tokens, sigmoid):
    model = make_clip(sigmoid=sigmoid)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = load_eva_clip(tmp_path / "model.safetensors", num_heads=2, text_heads=2)
    _same_features(model, other, tokens)
    assert (other.text.logit_bias is not None) == sigmoid


def test_half_precision(official_clip, tokens):
    model = load_eva_clip("eva_clip_psz14", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for found, expected in (
        (model.encode_image(IMAGES.bfloat16()), official_clip.encode_image(IMAGES)),
        (model.encode_text(tokens), official_clip.encode_text(tokens)),
    ):
        torch.testing.assert_close(found.float(), expected, atol=0.15, rtol=0.1)
    tower = load_vision_tower("eva_clip_psz14", dtype=torch.bfloat16)
    assert torch.equal(tower(IMAGES.bfloat16()), model.encode_image(IMAGES.bfloat16()))


@pytest.mark.parametrize("name", ["text.ln_final.bias", "visual.norm.weight"])
def test_a_file_that_lacks_something(official_clip, save, name):
    state = official_clip.state_dict()
    del state[name]
    with pytest.raises(ValueError, match=r"lacks|has a class token"):
        load_eva_clip(save(state))


def test_the_vision_tower_alone(official_clip, small_sizes, official):
    """With and without projection: which of both the official file is, nobody has confirmed."""
    tower = official_clip.visual
    state = {name: value.half() for name, value in tower.state_dict().items()}
    torch.save(state, small_sizes / "eva_clip_psz14_vision_enc.pt")
    official(small_sizes / "eva_clip_psz14_vision_enc.pt")
    loaded = load_vision_tower("eva_clip_psz14_vision_enc.pt")
    assert torch.equal(loaded(IMAGES), tower(IMAGES))
    assert torch.equal(load_vision_tower("eva_clip_psz14.pt")(IMAGES), tower(IMAGES))
    bare = {name: value for name, value in state.items() if not name.startswith("head.")}
    torch.save(bare, small_sizes / "bare.pt")
    bare_tower = load_vision_tower(small_sizes / "bare.pt")
    torch.testing.assert_close(bare_tower(IMAGES), tower.forward_features(IMAGES)[:, 0])


def test_training_begins_with_masked_image_weights(small_sizes, official, make_vit, caplog):
    """The norm is kept, the head of the pre-training left out, the projection begins."""
    caplog.set_level(logging.INFO)
    vit = make_vit(
        img_size=28, embed_dim=44, extra_tokens=("cls", "mask")
    )  # the size of EVA-g here
    state = vit.state_dict() | {
        "lm_head.weight": torch.zeros(8, 44),
        "lm_head.bias": torch.zeros(8),
    }
    torch.save({"model": state}, small_sizes / "eva_psz14.pt")
    official(small_sizes / "eva_psz14.pt")
    model = build_eva_clip(embed_dim=16)
    text = {name: value.clone() for name, value in model.text.state_dict().items()}
    initialise(model, "eva_psz14.pt", "")
    assert torch.equal(model.visual.forward_features(IMAGES), vit.forward_features(IMAGES))
    assert all(torch.equal(value, text[name]) for name, value in model.text.state_dict().items())
    assert "not used (pre-training head): lm_head." in caplog.text
    assert "not in the file (new head): visual.head." in caplog.text


def test_training_begins_with_a_complete_clip(official_clip, tokens):
    """For the sigmoid loss, too, whose bias begins."""
    model = build_eva_clip(embed_dim=16, sigmoid=True)
    initialise(model, "eva_clip_psz14.pt", "")
    _same_features(official_clip, model.eval(), tokens)
    assert model.text.logit_bias.item() == -10
