"""Files that can be read and hold the wrong shapes or names: a `ValueError`, nothing loaded."""

import pytest
import torch

from eva_backbone import VisionTransformer, load_pretrained, load_vit
from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.checkpoints.reading import read_weights

SIZES = dict(
    img_size=56, patch_size=14, embed_dim=16, depth=2, num_heads=2, mlp_dim=24,
    extra_tokens=("cls", "mask"),
)  # fmt: skip
WRONG = {
    "pos_embed": (1, 0, 16),
    "patch_embed.proj.weight": (16, 3, 1, 14, 14),
    "cls_token": (),
    "blocks.0.attn.qkv.weight": (5, 7),
    "blocks.0.attn.q_bias": (0,),
    "blocks.0.mlp.fc1.weight": (2,) * 6,
    "blocks.0.attn.rel_pos_h": (1,),
    "blocks.77.norm1.weight": (16,),
    "blocks.x.norm1.weight": (16,),
}


def refuse_all(file):
    """Every reader refuses the file, and a model stays as it is."""
    model = VisionTransformer(**SIZES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=file.name):
        load_pretrained(model, file)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=file.name):
        load_vit(file)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes(name, save):
    state = VisionTransformer(**SIZES).state_dict()
    refuse_all(save({**state, name: torch.ones(WRONG[name])}))


def test_other_structures(save):
    cyclic = {}
    cyclic["model"] = cyclic
    state = dict(VisionTransformer(**SIZES).state_dict())
    contents = [cyclic, {"model": {"model": {"model": state}}}, {"model": [state]}]
    contents += [state | {3: torch.ones(2)}, state | {"norm.weight": "s"}]
    for content in contents:
        file = save(content)
        refuse_all(file)
        for convert in FORMATS.values():
            with pytest.raises(ValueError, match=file.name):
                convert(read_weights(file), patch_size=8)
