"""Weights are finite floating-point numbers; whatever loads them says which one is not."""

import pytest
import torch

from eva_backbone import load_pretrained, load_vit
from eva_backbone.checkpoints.reading import read_weights

NAME = "blocks.1.mlp.fc1.weight"


def _with(value, where=5):
    def change(weight):
        weight = weight.clone()
        weight.flatten()[where] = value
        return weight

    return change


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("value", "suffix"),
    [(float("nan"), ".pt"), (float("inf"), ".safetensors"), (float("-inf"), ".pt")],
)
def test_not_finite(make_vit, save, refused, value, dtype, suffix):
    model = make_vit()
    state = {name: v.to(getattr(torch, dtype)) for name, v in make_vit().state_dict().items()}
    for where in (0, 700, -1):
        file = save(state | {NAME: _with(value, where)(state[NAME])}, f"weights{suffix}")
        message = rf"weights{suffix} .*{NAME} \({dtype} \(48, 32\)\)"
        with refused(model, message):
            load_pretrained(model, file)
    with pytest.raises(ValueError, match=message):
        load_vit(file)
    with pytest.raises(ValueError, match=message):
        read_weights(file)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (torch.Tensor.long, "int64"),
        (torch.Tensor.bool, "bool"),
        (lambda w: w.to(torch.complex64), "complex64"),
        (lambda w: w.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.Tensor.to_sparse, "is sparse"),
        (lambda w: torch.empty_like(w, device="meta"), "without values"),
        (lambda w: w[:1, :1].clone().expand(w.shape), "claims 6,144 bytes, and [0-9,]+ are stored"),
    ],
)
@pytest.mark.parametrize("name", [NAME, "decode_head.conv_seg.weight", "backbone.gamma_1"])
def test_other_numbers(make_vit, save, refused, change, found, name):
    state = make_vit().state_dict()
    model = make_vit()
    file = save(state | {name: change(state[NAME].clone().contiguous())})
    with refused(model, f"weights.pt is refused: {name} .*{found}"):
        load_pretrained(model, file)


def test_values_that_the_models_type_does_not_have(make_vit, save):
    """They would become infinite on the way."""
    state = make_vit().state_dict()
    file = save(state | {NAME: _with(1e5)(state[NAME])})
    with pytest.raises(ValueError, match=rf"{NAME}.*1e\+05.*float32.*float16"):
        load_vit(file, num_heads=2, dtype=torch.float16)
    assert load_vit(file, num_heads=2, dtype=torch.bfloat16).blocks[1].mlp.fc1.weight.max() > 9e4
