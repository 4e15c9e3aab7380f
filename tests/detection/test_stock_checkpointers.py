"""detectron2's own checkpointer loads files of every form into our backbone, completely."""

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from eva_backbone.checkpoints.convert import split_qkv_bias
from eva_command import convert

TRUNK = "backbone.net."


@pytest.fixture
def source(make_tiny_detector, randomise, tmp_path):
    """A detector with random weights, and its file."""
    model = randomise(make_tiny_detector(), std=0.05)
    file = tmp_path / "detector.pth"
    torch.save({"model": model.state_dict()}, file)
    return model, file


@pytest.fixture
def converted(tmp_path):
    """Function: a file in another form, by the command."""

    def run(file, *arguments):
        output = tmp_path / "converted.pth"
        assert convert.main([str(file), *arguments, "--output", str(output)]) == 0
        return output

    return run


def _assert_all_of(state, expected):
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize("query", ["", "?matching_heuristics=True"])
def test_a_fused_bias_is_split(source, converted, make_tiny_detector, caplog, query):
    """A file for the stock ViTDet has one `qkv.bias`; all q and v biases were lost silently."""
    model, file = source
    stock = converted(file, "--to", "detectron2-vitdet")
    assert f"{TRUNK}blocks.0.attn.qkv.bias" in torch.load(stock, weights_only=True)["model"]
    loaded = make_tiny_detector()
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(loaded).load(f"{stock}{query}")
    expected = model.state_dict()
    assert any("q_bias" in name for name in expected)
    _assert_all_of(loaded.state_dict(), expected)
    assert "bias" not in caplog.text  # neither missing nor left over


def test_the_bias_of_keys_is_left_out(source, make_tiny_detector):
    """The softmax takes it away: another one gives the same features."""
    model, _ = source
    weights = model.state_dict()
    name = f"{TRUNK}blocks.1.attn."
    parts = (weights.pop(f"{name}q_bias"), torch.full((32,), 3.0), weights.pop(f"{name}v_bias"))
    weights[f"{name}qkv.bias"] = torch.cat(parts)
    before = dict(weights)
    loaded = make_tiny_detector()
    loaded.load_state_dict(weights, strict=True)
    assert weights.keys() == before.keys()  # the caller's dict stays as it is
    _assert_all_of(loaded.state_dict(), model.state_dict())


def test_a_bare_backbone_by_heuristics(source, converted, make_tiny_detector, caplog, tmp_path):
    """Names without `backbone.net.` are found by their ends: in the official form of the bias."""
    model, _ = source
    state = model.state_dict()
    bare = {k.removeprefix(TRUNK): v for k, v in state.items() if k.startswith(TRUNK)}
    file = tmp_path / "bare.pth"
    torch.save({"model": bare}, file)
    official = converted(file, "--to", "official")
    loaded = make_tiny_detector()
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(loaded).load(f"{official}?matching_heuristics=True")
    assert "matched with submodule backbone.net" in caplog.text
    expected = {name: value for name, value in state.items() if name.startswith(TRUNK)}
    _assert_all_of(loaded.state_dict(), expected)
    assert expected.keys() == split_qkv_bias(expected).keys()
