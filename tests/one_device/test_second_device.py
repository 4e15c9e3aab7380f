"""A training step of each project makes its tensors where its input is, and calls its layers.

`second_device.py` has the device, `tests/device_steps.py` the models and steps.
"""

from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def devices(load_module):
    """The module `second_device.py`."""
    return load_module(Path(__file__).with_name("second_device.py"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No process group of other tests, over which frameworks would average."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


@pytest.fixture
def train(devices):
    """Function: a step on the second device, where loss and gradients lie, too."""

    def run(step, **options):
        with devices.second_device(**options) as device:
            loss = step.run(step.model.to(device), device)
            loss.backward()
            gradients = [value.grad for value in step.model.parameters() if value.grad is not None]
            assert gradients
            assert {tensor.device for tensor in (loss, *gradients)} == {device}

    return run


def test_a_training_step(train, make_step):
    train(make_step())


@pytest.mark.slow
def test_a_training_step_of_a_framework(train, make_framework_step):
    """detectron2 indexes masks with `torch.arange` of the CPU; all else is strict."""
    step = make_framework_step()
    train(step, indexes_on_cpu=hasattr(step.model, "proposal_generator"))


@pytest.mark.parametrize("kind", ["detector", "soft-nms", "mask2former, table, checkpoints"])
def test_predictions(devices, steps, kind):
    if kind in steps.SEGMENTORS:
        model, batch = steps.segmentor(kind), steps.segmentation_batch(64, 96)
    else:
        soft = ("use_soft_nms=True", "maskness_thresh=0.5", "max_detections=30")
        settings = soft if kind == "soft-nms" else ()
        model = steps.detector(*(f"model.roi_heads.{setting}" for setting in settings))
        batch = steps.detection_batch()
    with devices.second_device() as device, torch.no_grad():
        model = model.eval().to(device)
        if kind in steps.SEGMENTORS:
            scores = [result.seg_logits.data for result in model.test_step(batch)]
        else:
            scores = [result["instances"].scores for result in model(batch)]
        assert all(len(one) and one.device == device for one in scores)


class Faulty(nn.Module):
    """Adds a position that it makes on the CPU, in the forward or in the backward pass."""

    def __init__(self, fault):
        super().__init__()
        self.layer, self.fault = nn.Linear(4, 4), fault

    def forward(self, x):
        x = self.layer(x)
        if self.fault == "forward":
            return x + torch.arange(4.0)
        if self.fault == "index":
            return x[:, torch.tensor([0, 2])]
        if self.fault == "backward":
            return _BackwardOnCpu.apply(x)
        return x * torch.tensor(2.0) + torch.arange(4.0, device=x.device)


class _BackwardOnCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.ones(4)


@pytest.mark.parametrize("fault", ["forward", "index", "backward", None])
def test_a_planted_fault_is_found(train, devices, steps, fault):
    """Numbers without dimensions may come from the CPU, as on a GPU. Nothing is left behind."""
    step = steps.Step(Faulty(fault), torch.ones(3, 4), lambda model, x: model(x).square().sum())
    if fault is None:
        train(step)
    else:
        with pytest.raises(devices.TwoDevicesError, match=r"lazy:0.*cpu"):
            train(step)
    assert not hasattr(torch, "lazy")


class Added(nn.Module):
    """A layer and a trained addition to what it gives; nobody can read a weight here."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.added = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        out = self.layer(x)
        return out + torch.linspace(-1, 2, out.shape[-1]) * self.added


WRAPPED = {
    "masked features": lambda steps: steps.pretraining("masked_features"),
    "distillation": lambda steps: steps.pretraining("distillation"),
    "tokens": lambda steps: steps.pretraining("tokens"),
    "tokenizer": lambda steps: steps.tokenizer(),
    "classification": lambda steps: steps.classification("plain"),
    "class token": lambda steps: steps.classification("class token"),
    "detection": lambda steps: steps.detection(),
    "adapter": lambda steps: steps.segmentation("mask2former"),
    "pyramid": lambda steps: steps.segmentation("upernet"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_whatever_wraps_a_linear_layer_takes_effect(kind, steps):
    """So do LoRA, int8 and hooks; a model that reads a layer's weight would bypass them."""
    step = WRAPPED[kind](steps)
    # torch's own attention, which Mask2Former's decoder uses, reads the weight of its last layer
    attentions = [m for m in step.model.modules() if isinstance(m, nn.MultiheadAttention)]
    exempt = {id(module) for attention in attentions for module in attention.modules()}
    trained = {
        name: module
        for name, module in step.model.named_modules()
        if isinstance(module, nn.Linear)
        and id(module) not in exempt
        and module.weight.requires_grad
    }
    assert trained
    with torch.no_grad():
        for parameter in step.model.parameters():
            if not parameter.any():  # branches that start at zero would give no gradient
                parameter.normal_(std=0.02)
    for name, module in trained.items():
        step.model.set_submodule(name, Added(module))
    step.run(step.model, torch.device("cpu")).backward()
    gradients = {name: step.model.get_submodule(name).added.grad for name in trained}
    assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []
