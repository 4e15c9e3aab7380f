"""Weights are finite floating-point numbers; whatever loads them says which one is not."""

import pytest
import torch
from torch import nn

from eva_backbone import load_pretrained, load_vit
from eva_backbone.checkpoints.loading import load_weights, read_weights

NAME = "blocks.1.mlp.fc1.weight"
FLOATS = ["float16", "bfloat16", "float32", "float64"]


def _with(value, where=5):
    def change(weight):
        weight = weight.clone()
        weight.flatten()[where] = value
        return weight

    return change


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (float("nan"), "1 NaN and 0 infinite values"),
        (float("inf"), "0 NaN and 1 infinite values"),
        (float("-inf"), "0 NaN and 1 infinite values"),
    ],
)
def test_not_finite(make_vit, save, refused, value, found, dtype, suffix):
    model = make_vit()
    state = {name: v.to(getattr(torch, dtype)) for name, v in make_vit().state_dict().items()}
    for where in (0, 700, -1):
        file = save(state | {NAME: _with(value, where)(state[NAME])}, f"weights{suffix}")
        message = rf"weights{suffix} is refused: {NAME} {dtype} \(48, 32\) has {found}"
        with refused(model, message):
            load_pretrained(model, file)
    with pytest.raises(ValueError, match=message):
        load_vit(file)
    with pytest.raises(ValueError, match=message):
        read_weights(file)


def test_one_flipped_bit_of_an_exponent(make_vit, save, refused):
    """In safetensors, which have no checksum."""
    file = save(make_vit().state_dict(), "weights.safetensors")
    content = bytearray(file.read_bytes())
    place = len(content) - 401 - len(content) % 4  # highest byte of a float32
    content[place] = content[place] & 0x80 | 0x7F
    content[place - 1] |= 0x80
    file.write_bytes(content)
    model = make_vit()
    with refused(model, r"is refused: .* has \d NaN and \d infinite values"):
        load_pretrained(model, file)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (torch.Tensor.int, "is int32"),
        (torch.Tensor.long, "is int64"),
        (torch.Tensor.bool, "is bool"),
        (lambda w: w.to(torch.uint8), "is uint8"),
        (lambda w: w.to(torch.complex64), "is complex64"),
        (lambda w: w.to(torch.float8_e4m3fn), "is float8_e4m3fn"),
        (torch.Tensor.to_sparse, "is sparse or quantised"),
        (lambda w: torch.empty_like(w, device="meta"), "is without values"),
        (
            lambda w: w[:1, :1].clone().expand(w.shape),
            "claims 6,144 bytes .*, and [0-9,]+ are stored",
        ),
    ],
)
@pytest.mark.parametrize("name", [NAME, "decode_head.conv_seg.weight", "backbone.gamma_1"])
def test_other_numbers(make_vit, save, refused, change, found, name):
    state = make_vit().state_dict()
    model = make_vit()
    file = save(state | {name: change(state[NAME].clone().contiguous())})
    with refused(model, f"weights.pt is refused: {name} {found}"):
        load_pretrained(model, file)


def test_what_is_no_weight_may_be_an_integer_or_infinite(make_vit, wrap, save):
    """Indexes, counters and masks that released files have beside their weights."""
    state = make_vit().state_dict()
    beside = {
        "relative_position_index": torch.arange(9),
        "blocks.0.attn.relative_position_index": torch.arange(9),
        "visual.head.0.num_batches_tracked": torch.tensor(3),
        "text.attn_mask": torch.full((3, 3), -torch.inf),
        "text.position_ids": torch.arange(3),
        "roi_heads.steps": torch.tensor([3]),  # of somebody's own head
    }
    model = make_vit()
    load_pretrained(model, save(state | beside), allow_skipped=["text", "roi_heads", "visual"])
    assert torch.equal(model.state_dict()[NAME], state[NAME])


def test_counters_of_the_model_are_loaded(make_vit, wrap, save):
    source = wrap(make_vit(), head=nn.BatchNorm1d(4))
    source.head.num_batches_tracked.fill_(7)
    model = wrap(make_vit(), head=nn.BatchNorm1d(4))
    load_pretrained(model, save(source.state_dict()))
    assert model.head.num_batches_tracked == 7


def test_integers_do_not_become_weights_by_way_of_other_names(make_vit, refused):
    model = make_vit()
    state = make_vit().state_dict()
    state[NAME] = state[NAME].long()
    with refused(model, rf"weights.pt holds {NAME} as other numbers .*int64 -> float32"):
        load_weights(model, state, source="weights.pt")


def test_values_that_the_models_type_does_not_have(make_vit, save):
    """They would become infinite on the way."""
    state = make_vit().state_dict()
    file = save(state | {NAME: _with(1e5)(state[NAME])})
    with pytest.raises(ValueError, match=rf"{NAME} with values up to 1e\+05, .*float32 -> float16"):
        load_vit(file, num_heads=2, dtype=torch.float16)
    assert load_vit(file, num_heads=2, dtype=torch.bfloat16).blocks[1].mlp.fc1.weight.max() > 9e4
