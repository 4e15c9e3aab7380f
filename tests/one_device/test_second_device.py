"""Training steps of all projects make every tensor where their input is, as a GPU demands.

`second_device.py` has the device, `tests/device_steps.py` the models and steps. Random numbers are
the CPU's on both devices, so results can be compared. Training of detectors and segmentors is
compared by `make test-slow`.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

STEPS = {
    **{f"vit, {kind}": ("vit", kind) for kind in (
        "class token", "layer scale and checkpoints", "every sample dropped", "table",
        "windows, beit", "windows, vitdet, checkpoints")},
    "pyramid": ("pyramid",),
    **{kind: ("pretraining", kind) for kind in ("masked_features", "distillation", "tokens")},
    **{kind: ("classification", kind) for kind in ("mixed", "class token", "linear probe")},
    **{f"video, {kind}": ("video", kind) for kind in ("mixed", "checkpoints")},
    **{f"clip, {kind}": ("contrastive", kind)
       for kind in ("sigmoid", "patch dropout", "checkpoints")},
}  # fmt: skip
SLOW_STEPS = {
    "detector, vitdet": ("detection",),
    "detector, beit": ("detection", "model.backbone.net.rel_pos=beit"),
    "mask2former": ("segmentation", "mask2former, table, checkpoints"),
    "upernet": ("segmentation", "upernet, windows"),
}


@pytest.fixture(scope="session")
def devices(load_module):
    """The module `second_device.py`."""
    return load_module(Path(__file__).with_name("second_device.py"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No process group of other tests, over which frameworks would average."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)


@pytest.fixture
def same_training(devices):
    """Function: a step on the CPU and on the second device; loss and gradients are the same."""

    def compare(step, **options):
        other = copy.deepcopy(step.model)
        expected = step.run(step.model, torch.device("cpu"))
        expected.backward()
        with devices.second_device(**options) as device:
            loss = step.run(other.to(device), device)
            assert loss.device == device
            loss.backward()
            gradients = {name: value.grad for name, value in other.named_parameters()}
            gradients = {name: grad for name, grad in gradients.items() if grad is not None}
            assert all(gradient.device == device for gradient in gradients.values())
            gradients = {name: gradient.cpu() for name, gradient in gradients.items()}
            loss = loss.detach().cpu()
        torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-5)
        wanted = {name: value.grad for name, value in step.model.named_parameters()}
        wanted = {name: gradient for name, gradient in wanted.items() if gradient is not None}
        assert gradients.keys() == wanted.keys()
        largest = max(gradient.abs().max().item() for gradient in wanted.values())
        assert largest > 0
        for name, gradient in wanted.items():
            # biases in front of a norm have gradients that are rounding alone, hence `largest`
            atol = 1e-3 * gradient.abs().max().item() + 1e-5 * largest
            torch.testing.assert_close(gradients[name], gradient, atol=atol, rtol=0)

    return compare


@pytest.mark.parametrize("kind", STEPS)
def test_a_training_step(same_training, steps, kind):
    function, *arguments = STEPS[kind]
    same_training(getattr(steps, function)(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW_STEPS)
def test_a_training_step_of_a_framework(same_training, steps, kind):
    """detectron2 indexes masks with `torch.arange` of the CPU; all else is strict."""
    function, *arguments = SLOW_STEPS[kind]
    same_training(getattr(steps, function)(*arguments), indexes_on_cpu=function == "detection")


@pytest.mark.parametrize("soft_nms", [False, True])
def test_detections(devices, steps, soft_nms):
    settings = ("use_soft_nms=True", "maskness_thresh=0.5", "max_detections=30")
    model = steps.detector(*(f"model.roi_heads.{one}" for one in settings if soft_nms)).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        expected = [result["instances"] for result in model(steps.detection_batch())]
        with devices.second_device() as device:
            results = other.to(device)(steps.detection_batch())
            for result, instances in zip(results, expected, strict=True):
                scores = result["instances"].scores
                assert scores.device == device
                assert len(instances) > 0
                torch.testing.assert_close(scores.cpu(), instances.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mask2former, table, checkpoints", "upernet, windows"])
def test_label_maps(devices, steps, kind):
    model = steps.segmentor(kind).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        expected = model.test_step(steps.segmentation_batch(64, 96))
        with devices.second_device() as device:
            results = other.to(device).test_step(steps.segmentation_batch(64, 96))
            for result, sample in zip(results, expected, strict=True):
                logits = result.seg_logits.data
                assert logits.device == device
                torch.testing.assert_close(
                    logits.cpu(), sample.seg_logits.data, atol=1e-4, rtol=1e-4
                )


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
def test_a_planted_fault_is_found(same_training, devices, steps, fault):
    """Numbers without dimensions may come from the CPU, as on a GPU. Nothing is left behind."""
    step = steps.Step(
        Faulty(fault), lambda: torch.ones(3, 4), lambda model, x: model(x).square().sum(), True
    )
    if fault is None:
        same_training(step)
    else:
        with pytest.raises(devices.TwoDevicesError, match=r"on lazy:0.* on cpu"):
            same_training(step)
    assert not hasattr(torch, "lazy")
