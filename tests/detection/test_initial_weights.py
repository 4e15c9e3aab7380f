"""Initial weights of a detector by the file of a backbone."""

import copy

import torch
from torch import nn

from eva_backbone import build_vit
from eva_detection.building import load_initial_weights

TRUNK = "backbone.net."


def test_a_backbone_file_fills_the_trunk_and_nothing_else(make_tiny_detector, randomise, tmp_path):
    """As pre-training leaves it: class and mask token, final norm, head, fp16."""
    sizes = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_dim": 64}
    vit = build_vit("eva_debug", **sizes, extra_tokens=("cls", "mask"))
    vit.lm_head = nn.Linear(32, 16)
    state = {name: value.half() for name, value in randomise(vit).state_dict().items()}
    torch.save({"model": state}, tmp_path / "pretrained.pt")
    model = make_tiny_detector()
    before = copy.deepcopy(model.state_dict())
    report = load_initial_weights(model, str(tmp_path / "pretrained.pt"))
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
