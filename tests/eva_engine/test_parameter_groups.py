"""Parameter groups: those of one ViT, those of two towers, and groups that do not fit the model."""

import pytest
import torch
from torch import nn

from eva_backbone.layer_decay import param_groups_layer_decay
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.parameter_groups import (
    ParameterGroup,
    layer_decay_groups,
    optimizer_groups,
)


class Tower(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 3))
        self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(depth)])

    def forward(self, x):
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual, self.words = Tower(2), Tower(1)
        self.scale = nn.Parameter(torch.ones(1))  # DeepSpeed shares no scalars

    def forward(self, x):
        return self.scale * (self.visual(x) * self.words(x)).mean()


def of_towers(model):
    slow, words = OptimizerConfig(lr=1, layer_decay=0.5), OptimizerConfig(lr=1, weight_decay=0.2)
    return [
        *layer_decay_groups(model.visual, slow, depth=2, lr_scale=0.1),
        *layer_decay_groups(model.words, words, depth=1),
        ParameterGroup(name="scale", params=[model.scale]),
    ]


def test_groups_of_one_vit_are_those_of_its_layers(program):
    """Content, order and names, on which the state in checkpoints depends."""
    model = program.Model(0.0)
    expected = param_groups_layer_decay(model, depth=2, lr=3e-2, weight_decay=0.05, layer_decay=0.8)
    groups = layer_decay_groups(model, OptimizerConfig(lr=1, layer_decay=0.8), depth=2)
    found = optimizer_groups(model, groups, lr=3e-2)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("lr", "lr_scale", "weight_decay", "name"):
            assert one[name] == other[name]
        assert all(a is b for a, b in zip(one["params"], other["params"], strict=True))


@pytest.mark.parametrize("stage", [0, 1])
def test_towers_have_rates_and_decays_of_their_own(device, tmp_path, stage):
    model = Towers()
    run = RunConfig(output=tmp_path, batch_size=4, zero_stage=stage)
    engine = TrainingEngine(
        model, groups=of_towers(model), optimizer=OptimizerConfig(lr=1.0), run=run
    )
    engine.set_learning_rate(0.4)
    found = [(group["lr"], group["weight_decay"]) for group in engine.optimizer.param_groups]
    # visual: embeddings, two blocks (weight, bias); words: embeddings, one block; the scale
    rates = [0.005, 0.01, 0.01, 0.02, 0.02, 0.4, 0.4, 0.4, 0.4]
    decays = [0, 0.05, 0, 0.05, 0, 0, 0.2, 0, 0]
    assert found == [(pytest.approx(lr), decay) for lr, decay in zip(rates, decays, strict=True)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    engine.engine.set_gradient_accumulation_boundary(True)
    engine.backward(engine.engine(torch.randn(2, 4, 3)), last=True)
    assert engine.step()[1]
    # AdamW's first step is the learning rate, whatever the gradient
    for name, lr in (("visual.pos_embed", 0.005), ("words.pos_embed", 0.4), ("scale", 0.4)):
        change = (dict(model.named_parameters())[name] - before[name]).abs()
        torch.testing.assert_close(change, torch.full_like(change, lr), rtol=1e-3, atol=0)
