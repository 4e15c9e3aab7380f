"""Text towers from the files of OpenAI, open_clip and transformers."""

import open_clip
import pytest
import torch

from eva_contrastive.model.eva_clip import TextTower, tokenize
from eva_contrastive.model.loading import initialise_text

SIZES = {"vocab_size": 49408, "width": 64, "depth": 2, "num_heads": 1}
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def tower():
    return TextTower(output_dim=16, context_length=16, **SIZES).eval()


@pytest.fixture(scope="module")
def peer():
    """A CLIP of open_clip with exact GELU, as the tower has it."""
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture
def save(tmp_path):
    def write(state, name="text.pt"):
        torch.save(state, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("form", ["model", "text", "archive"])
def test_forms(tower, peer, save, tmp_path, form):
    tokens = tokenize(["a dog", "two of them and more"], 16)
    state = {name: value for name, value in peer.state_dict().items() if name != "logit_scale"}
    if form == "model":
        source = save(state)
    elif form == "text":
        source = save({f"text.{k}": v for k, v in state.items() if not k.startswith("visual.")})
    else:
        source = str(tmp_path / "ViT-L-14.pt")
        torch.jit.script(_Archive(state)).save(source)
    scale = tower.logit_scale.clone()
    initialise_text(tower, source)
    with torch.no_grad():
        assert torch.equal(tower(tokens), peer.encode_text(tokens))
    assert torch.equal(tower.logit_scale, scale)


class _Archive(torch.nn.Module):
    """Tensors at the places where OpenAI's archives have them."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *folders, last = name.split(".")
            module = self
            for folder in folders:
                if not hasattr(module, folder):
                    module.add_module(folder, torch.nn.Module())
                module = getattr(module, folder)
            module.register_parameter(last, torch.nn.Parameter(value.clone(), requires_grad=False))

    def forward(self, x: torch.Tensor):
        return x


def test_another_projection_and_shorter_texts(peer, save, caplog):
    caplog.set_level("INFO")
    tower = TextTower(output_dim=8, context_length=12, **SIZES)
    projection = tower.text_projection.clone()
    initialise_text(tower, save(peer.state_dict()))
    assert torch.equal(tower.text_projection, projection)
    assert torch.equal(tower.positional_embedding, peer.positional_embedding[:12])
    assert torch.equal(tower.token_embedding.weight, peer.token_embedding.weight)
    assert "the projection of the texts begins from scratch" in caplog.text
