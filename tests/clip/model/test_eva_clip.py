"""The two towers."""

import open_clip
import pytest
import torch

from eva_backbone import VARIANTS
from eva_contrastive.model.eva_clip import build_eva_clip, tokenize
from eva_contrastive.model.loading import load_eva_clip
from eva_contrastive.model.open_clip_form import write_folder
from eva_engine.checkpoints.files import save_weights


def test_official_states_load_without_a_loader(make_clip):
    """Their factor of the logits is a tensor without dimensions."""
    model = make_clip()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    state["text.logit_scale"] = state["text.logit_scale"].squeeze()
    model.load_state_dict(state)
    assert model.text.logit_scale.shape == (1,)
    assert all(
        value.equal(state[name].view_as(value)) for name, value in model.state_dict().items()
    )
    assert state["text.logit_scale"].shape == ()


def test_patch_dropout(make_clip):
    """Kept patches stay in order and keep their positions; the class token always stays."""
    tower = make_clip(patch_dropout=0.5, img_size=70, depth=1).visual.train()
    images = torch.randn(4, 3, 70, 70)
    tokens, _ = tower.embed(images)
    torch.manual_seed(3)
    kept = tower._drop_patches(tokens)
    assert kept.shape == (4, 1 + 12, 32)
    torch.testing.assert_close(kept[:, 0], tokens[:, 0])
    places = (kept[:, 1:, None] == tokens[:, None, 1:]).all(-1).float().argmax(2)
    torch.testing.assert_close(
        tokens[:, 1:].gather(1, places[..., None].expand(-1, -1, 32)), kept[:, 1:]
    )
    assert (places.diff(dim=1) > 0).all()
    assert len({tuple(row) for row in places.tolist()}) == 4
    torch.manual_seed(3)
    expected = tower.head(tower.norm(tower.forward_tokens(kept))[:, 0])
    torch.testing.assert_close(tower(images), expected)
    torch.testing.assert_close(
        tower.eval()(images), tower.head(tower.forward_features(images)[:, 0])
    )


def test_texts(make_clip):
    tokens = tokenize("a photo of a dog", 16)
    model = make_clip()
    longer = tokens.clone()
    longer[0, 8:] = 300  # behind the end token nothing counts
    torch.testing.assert_close(model.encode_text(longer), model.encode_text(tokens))


DEBUG = [name for name in VARIANTS if name.endswith("_debug") and name != "sam3_debug"]


@pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=[pytest.mark.slow] * (i > 2)) for i, v in enumerate(DEBUG)]
)
def test_a_tower_of_another_family_is_read_as_it_was_written(variant, randomise, tmp_path):
    model = randomise(build_eva_clip(variant, "debug", embed_dim=24, img_size=64)).eval()
    save_weights(model.state_dict(), tmp_path / "model.safetensors", {})
    images = torch.randn(2, 3, 64, 64)
    features = load_eva_clip(tmp_path / "model.safetensors").encode_image(images)
    assert features.std() > 1e-3
    torch.testing.assert_close(features, model.encode_image(images))


def test_patch_dropout_keeps_all_registers_and_needs_positions_of_tokens():
    tower = build_eva_clip(
        "dinov2_reg_debug", "debug", img_size=64, patch_dropout=0.5
    ).visual.train()
    tokens, _ = tower.embed(torch.randn(2, 3, 64, 64))
    kept = tower._drop_patches(tokens)
    assert kept.shape[1] == 5 + 32
    assert kept[:, :5].equal(tokens[:, :5])
    with pytest.raises(ValueError, match=r"patch_dropout.*0\.5"):
        build_eva_clip("dinov3_debug", "debug", patch_dropout=0.5)


def test_pooling_by_attention_is_refused(make_clip, tmp_path):
    """As Perception Encoder and SigLIP have it; the class token would be another feature."""
    state = make_clip().state_dict() | {"visual.attn_pool.latent": torch.ones(1, 1, 32)}
    save_weights(state, tmp_path / "model.safetensors", {})
    with pytest.raises(ValueError, match="attn_pool"):
        load_eva_clip(tmp_path / "model.safetensors")


def test_towers_of_other_families_are_not_written_for_open_clip(tmp_path):
    state = build_eva_clip("siglip2_debug", "debug", embed_dim=24, img_size=64).state_dict()
    save_weights(state, tmp_path / "model.safetensors", {})
    with pytest.raises(ValueError, match="siglip2"):
        write_folder(state, tmp_path, tmp_path / "model.safetensors")


@pytest.mark.slow
def test_eva02_clip_of_open_clip(tmp_path):
    theirs = open_clip.create_model("EVA02-B-16").eval()
    state = {name: value.contiguous() for name, value in theirs.state_dict().items()}
    save_weights(state, tmp_path / "open_clip_model.safetensors", {})
    ours = load_eva_clip(tmp_path / "open_clip_model.safetensors")
    images, tokens = torch.randn(2, 3, 224, 224), tokenize(["a dog", "two cats"])
    for kind, inputs in (("image", images), ("text", tokens)):
        expected = getattr(theirs, f"encode_{kind}")(inputs)
        actual = getattr(ours, f"encode_{kind}")(inputs)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
