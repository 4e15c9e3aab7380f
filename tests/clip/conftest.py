"""Small models of two towers, and files of them under the official names."""

from dataclasses import replace

import pytest
import torch

from eva_backbone import variants
from eva_contrastive.model import towers
from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip
from eva_contrastive.model.towers import TextTower, TextVariant, VisionTower

VISION = {
    "img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48
}  # fmt: skip
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="session")
def make_clip(randomise):
    """Function: a small CLIP, random everywhere, in eval mode."""

    def make(*, output_dim=16, sigmoid=False, text=None, **vision):
        visual = VisionTower(output_dim=output_dim, **VISION | vision)
        words = TextTower(output_dim=output_dim, sigmoid=sigmoid, **TEXT | (text or {}))
        return randomise(EvaClip(visual, words)).eval()

    return make


@pytest.fixture
def small_sizes(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and EVA-CLIP-g so small that its files fit into it."""
    vision = replace(
        variants.VARIANTS["eva_g_patch14"],
        img_size=28, embed_dim=44, depth=2, num_heads=2, mlp_dim=48,
    )  # fmt: skip
    monkeypatch.setitem(variants.VARIANTS, "eva_g_patch14", vision)
    text = TextVariant(24, 2, 2, context_length=16)
    monkeypatch.setitem(towers.TEXT_VARIANTS, "clip_l", text)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def official_clip(small_sizes, official, randomise):
    """A small EVA-CLIP, and the official file `eva_clip_psz14.pt` of it, in half precision."""
    model = randomise(build_eva_clip(embed_dim=16)).half().float().eval()
    state = {name: value.half() for name, value in model.state_dict().items()}
    state["text.logit_scale"] = state["text.logit_scale"].reshape(())
    torch.save(state, small_sizes / "eva_clip_psz14.pt")
    official(small_sizes / "eva_clip_psz14.pt")
    return model
