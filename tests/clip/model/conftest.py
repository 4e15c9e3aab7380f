"""open_clip models of the sizes of `make_clip`."""

import json

import open_clip
import pytest
import torch
from timm.models import is_model, register_model
from timm.models.eva import Eva

from eva_contrastive.model.eva_clip import tokenize

_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
_CONFIGS = {
    "trunk": {"timm_model_name": "small_eva_giant", "timm_pool": "token", "timm_proj": None},
    "vit": {
        "patch_size": 14,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "mlp_ratio": 48.5 / 32,
        "no_ln_pre": True,
        "norm_kwargs": {"eps": 1e-6},
    },
}


def small_eva_giant(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None,
                    cache_dir=None, **kwargs):  # fmt: skip
    """timm's `eva_giant_patch14_224` with smaller numbers."""
    sizes = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Eva(**sizes | {"mlp_ratio": 48 / 32} | kwargs)


if not is_model("small_eva_giant"):
    register_model(small_eva_giant)


@pytest.fixture
def make_peer(tmp_path):
    """Function: open_clip's model of that size; "trunk" (timm) or "vit" (its own)."""

    def make(kind, *, sigmoid=False, **vision):
        config = {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 28} | _CONFIGS[kind] | vision,
            "text_cfg": _TEXT,
            "custom_text": True,
        }
        if sigmoid:
            config["init_logit_bias"] = -10
        path = tmp_path / f"small-{kind}-{sigmoid}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        return open_clip.create_model(path.stem).eval()

    return make


@pytest.fixture(autouse=True)
def known_models(monkeypatch):
    """Forget the configs of a test when it ends."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))


@pytest.fixture
def pairs():
    """Pictures and texts, an empty one and one that is too long among them."""
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, tokenize(["the digit seven", "", "a photograph of a dog " * 20], 16)


@pytest.fixture
def assert_same_features(pairs):
    """Function: two models give the same features and factor of the logits."""

    def check(model, peer, *, atol=1e-5):
        images, tokens = pairs
        with torch.no_grad():
            for encode, inputs in (("encode_image", images), ("encode_text", tokens)):
                found, expected = (getattr(each, encode)(inputs) for each in (model, peer))
                assert expected.abs().max() > 0.1
                torch.testing.assert_close(found, expected, atol=atol, rtol=0)
            one, other = model(images, tokens), peer(images, tokens)
        for found, expected in zip(one, other, strict=False):
            if expected is not None:
                torch.testing.assert_close(found.squeeze(), expected.squeeze(), atol=atol, rtol=0)

    return check
