"""DetectionTrainer: precision, accumulation, metrics, and what it refuses."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from eva_detection.training.trainer import DetectionTrainer


class TwoLosses(nn.Module):
    """A model that is not a detector: two losses, means over the batch, and what it computed in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.dtypes = []

    def forward(self, batch):
        out = self.layer(batch)
        self.dtypes.append(out.dtype)
        return {"loss_a": out.float().square().mean(), "loss_b": 0.1 * out.float().sin().mean()}


class Batches:
    """The same images for any batch size, as a loader."""

    def __init__(self, batch_size, *, images=24):
        data = torch.randn(images, 4, generator=torch.Generator().manual_seed(0))
        self.batches = data.split(batch_size)

    def __iter__(self):
        return iter(self.batches)


@pytest.fixture
def model():
    return TwoLosses()


def _sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def _train(trainer, steps=1, start=0):
    with EventStorage(start) as trainer.storage:
        for trainer.iter in range(start, start + steps):
            trainer.run_step()
            trainer.storage.step()
    return trainer.storage


def test_two_half_batches_equal_one_batch(model):
    other = copy.deepcopy(model)
    whole = DetectionTrainer(model, Batches(8), _sgd(model))
    halves = DetectionTrainer(other, Batches(4), _sgd(other), accumulate=2)
    storages = [_train(trainer, steps=3) for trainer in (whole, halves)]
    for name, parameter in model.named_parameters():
        accumulated = other.get_parameter(name)
        assert parameter.grad.abs().max() > 1e-3
        torch.testing.assert_close(accumulated.grad, parameter.grad, atol=1e-7, rtol=1e-5)
        torch.testing.assert_close(accumulated, parameter, atol=1e-7, rtol=1e-5)
    logged = [storage.history("total_loss").values() for storage in storages]
    assert len(logged[0]) == 3
    for (mean, _), (accumulated, _) in zip(*logged, strict=True):
        assert accumulated == pytest.approx(mean)
    assert len(other.dtypes) == 6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(model, precision, value):
    batches = Batches(8)
    batches.batches[1][0] = value
    trainer = DetectionTrainer(
        model, batches, torch.optim.AdamW(model.parameters()), precision=precision, accumulate=2
    )
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match=r"NaN.*1"):
        _train(trainer)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


class NoGradient(TwoLosses):
    """Finite losses, gradients that are not: the slope of a root at 0."""

    def forward(self, batch):
        losses = super().forward(next(image["image"] for image in batch))
        return losses | {"loss_root": (self.layer.weight * 0.0).sqrt().sum()}


def _named(batches):
    """A loader of batches with names."""
    loader = Batches(8)
    loader.batches = [
        [{"image": batch, "file_name": f"{index}.jpg", "image_id": index}]
        for index, batch in enumerate(batches.batches)
    ]
    return loader


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_is_not_finite_stops_before_the_step(precision):
    """With plain AdamW, which would apply it."""
    model = NoGradient()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters())
    trainer = DetectionTrainer(
        model, _named(Batches(8)), optimizer, precision=precision, accumulate=2
    )
    message = r"A gradient, .* became .* at iteration 1, .*0\.jpg \(id 0\), 1\.jpg \(id 1\)"
    with pytest.raises(FloatingPointError, match=message):
        _train(trainer)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not optimizer.state


class Overflow(TwoLosses):
    """A gradient that overflows in its first steps."""

    overflows = 1

    def forward(self, batch):
        losses = super().forward(batch)
        self.overflows -= 1
        if self.overflows >= 0:
            losses["loss_a"].register_hook(lambda gradient: gradient * torch.inf)
        return losses


def _with_loss_scale(model, scale):
    """Trains on the CPU with the loss scale of fp16."""
    batches = Batches(1)
    trainer = DetectionTrainer(model, batches, torch.optim.AdamW(model.parameters(), lr=0.1))
    trainer.precision = "fp16"
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


def test_an_overflow_in_fp16_skips_the_step(model):
    model = Overflow()
    before = copy.deepcopy(model.state_dict())
    trainer = _with_loss_scale(model, 4.0)
    _train(trainer)
    assert trainer.grad_scaler.get_scale() == 2.0
    assert torch.equal(model.layer.weight, before["layer.weight"])
    _train(trainer, start=1)
    assert not torch.equal(model.layer.weight, before["layer.weight"])


def test_overflows_at_the_lowest_scale_end_the_run():
    model = Overflow()
    model.overflows = 20
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match=r"1.*3"):
        _train(_with_loss_scale(model, 4.0), steps=20)
    assert torch.equal(model.layer.weight, before["layer.weight"])
