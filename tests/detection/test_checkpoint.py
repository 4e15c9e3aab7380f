"""Initial weights by file, complete detectors, and run checkpoints that survive an interruption."""

import copy

import pytest
import torch
from torch import nn

from eva_backbone import build_vit
from eva_detection.building import load_initial_weights

WIDTH = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_dim": 64}
TRUNK = "backbone.net."


@pytest.fixture
def pretrained(tmp_path, randomise):
    """A backbone as pre-training leaves it: class and mask token, final norm, head, fp16."""
    vit = build_vit("eva_debug", **WIDTH, extra_tokens=("cls", "mask"))
    vit.lm_head = nn.Linear(32, 16)
    state = {name: value.half() for name, value in randomise(vit).state_dict().items()}
    file = tmp_path / "pretrained.pt"
    torch.save({"model": state}, file)
    return file, state


@pytest.fixture
def save_detector(tmp_path, randomise, make_tiny_detector):
    """Function: a detector with random weights and the file that a run would leave of it."""

    def save(*overrides):
        model = randomise(make_tiny_detector(*overrides))
        file = tmp_path / "detector.pth"
        torch.save({"model": model.state_dict(), "iteration": 9}, file)
        return model, file

    return save


def _state(model):
    return copy.deepcopy(model.state_dict())


def _assert_same(model, state):
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_backbone_file_fills_the_trunk_and_nothing_else(make_tiny_detector, pretrained):
    file, state = pretrained
    model = make_tiny_detector()
    before = _state(model)
    report = load_initial_weights(model, str(file))
    for name, value in model.state_dict().items():
        local = name.removeprefix(TRUNK)
        if name.startswith(TRUNK) and ".rel_pos_" not in name:
            assert torch.equal(value, state[local].float()), name
            assert name in report.loaded
        else:
            assert torch.equal(value, before[name]), name
            assert name in report.missing
    assert {"cls_token", "mask_token"} <= {name.removeprefix(TRUNK) for name in report.skipped}
    assert not report.resampled


def test_another_class_count_is_refused_for_evaluation(save_detector, make_tiny_detector):
    _, file = save_detector("model.roi_heads.num_classes=7")
    model = make_tiny_detector()
    before = _state(model)
    message = r"detector\.pth does not fit .*cls_score\.weight \(8, 192\) -> \(11, 192\)"
    with pytest.raises(ValueError, match=message):
        load_initial_weights(model, str(file), complete=True)
    _assert_same(model, before)
