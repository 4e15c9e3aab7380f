"""Steps of the detector and the segmentors in fp16 and bf16, with what they train with.

A segmentor trains in float32 unless its config names `AmpOptimWrapper`; both are tried.
"""

import contextlib

import pytest
import torch
from detectron2.utils.events import EventStorage

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
SEGMENTORS = ("mask2former", "mask2former, table, checkpoints", "upernet", "upernet, windows")
OVERFLOW = 2.0**100  # of a loss, which stays finite in float32 while gradients do not
SETTLED = 12  # steps after which a loss scale that began at 2**16 fits
DETECTOR = {
    "vitdet": (),
    "beit, checkpoints": (
        "model.backbone.net.rel_pos=beit",
        "model.backbone.net.activation_checkpointing=True",
    ),
    "no relative positions": ("model.backbone.net.rel_pos=none",),
}


@pytest.fixture(params=["fp32", "bf16", "fp16"])
def precision(request, gpu):
    if request.param == "fp16" and gpu.type == "cpu":
        pytest.skip("needs a GPU")
    return request.param


def copies(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def unchanged(model, before):
    return [name for name, value in model.named_parameters() if torch.equal(value, before[name])]


class Overflowing(torch.nn.Module):
    """A detector whose losses are multiplied by a factor."""

    def __init__(self, detector):
        super().__init__()
        self.detector, self.factor = detector, 1.0

    def forward(self, batch):
        return {name: self.factor * loss for name, loss in self.detector(batch).items()}


def train(trainer, steps, start=0):
    """Some steps of a detection trainer; what it logged in the last one."""
    with EventStorage(start) as storage:
        trainer.storage = storage
        for trainer.iter in range(start, start + steps):
            trainer.run_step()
            storage.step()
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.fixture
def make_trainer(steps, gpu, precision):
    """Function: a trainer of the tiny debug detector on the device."""
    from eva_detection.optimizer import ClippedAdamW
    from eva_detection.training.trainer import DetectionTrainer

    def make(*overrides):
        model = Overflowing(steps.detection(*overrides).model).to(gpu)
        batches = [steps.detection_batch() for _ in range(20)]
        optimizer = ClippedAdamW(model.parameters(), max_grad_norm=1.0, lr=1e-3)
        return DetectionTrainer(model, batches, optimizer, precision=precision)

    return make


@pytest.mark.parametrize("kind", DETECTOR)
def test_detection(make_trainer, precision, kind):
    """The parts of the cascade learn; weights and gradients stay in float32."""
    trainer = make_trainer(*DETECTOR[kind])
    before = copies(trainer.model)
    logged = train(trainer, SETTLED)
    losses = {name for name in logged if name.startswith("loss_") and name != "loss_scale"}
    assert len(losses) == 9  # two for each of three stages, masks, two of the RPN
    assert all(torch.tensor(value).isfinite() for value in logged.values())
    assert 0 < logged["grad_norm"] < 1e3  # without the loss scale
    assert ("loss_scale" in logged) == (precision == "fp16")
    assert unchanged(trainer.model, before) == [], "not trained"
    for name, value in trainer.model.named_parameters():
        assert value.dtype == value.grad.dtype == torch.float32, name
        assert value.grad.isfinite().all(), name


def test_an_overflow_in_detection(make_trainer, precision):
    """fp16 leaves the step out and halves the loss scale, which a checkpoint holds."""
    if precision != "fp16":
        pytest.skip("is about the loss scale of fp16")
    trainer = make_trainer()
    train(trainer, SETTLED)
    scale, before = trainer.grad_scaler.get_scale(), copies(trainer.model)
    trainer.model.factor = OVERFLOW
    train(trainer, 1, start=SETTLED)
    assert unchanged(trainer.model, before) == list(before)
    assert trainer.grad_scaler.get_scale() == scale / 2
    assert trainer.state_dict()["grad_scaler"]["scale"] == scale / 2
    trainer.model.factor = 1.0
    train(trainer, 1, start=SETTLED + 1)
    assert unchanged(trainer.model, before) == []


def wrapper(model, precision):
    """mmengine's optimizer wrapper as configs name it."""
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if precision == "fp32":
        return OptimWrapper(optimizer)
    scale = {"loss_scale": "dynamic"} if precision == "fp16" else {}
    # its scaler is made for GPUs alone
    device = next(model.parameters()).device
    if device.type == "cpu":
        return _AutocastOnCpu(optimizer, HALVES[precision])
    return AmpOptimWrapper(optimizer=optimizer, dtype=precision_name(precision), **scale)


def precision_name(precision):
    return {"fp16": "float16", "bf16": "bfloat16"}[precision]


class _AutocastOnCpu:
    """To try these tests out; `AmpOptimWrapper` refuses a CPU."""

    def __init__(self, optimizer, dtype):
        self.optimizer, self.dtype = optimizer, dtype

    @contextlib.contextmanager
    def optim_context(self, model):
        del model
        with torch.autocast("cpu", self.dtype):
            yield

    def update_params(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


@pytest.mark.parametrize("kind", SEGMENTORS)
def test_segmentation(steps, gpu, precision, kind):
    """Losses are finite and in float32, and every weight that is trained gets a gradient."""
    assert set(SEGMENTORS) == set(steps.SEGMENTORS)
    model = steps.segmentation(kind).model.to(gpu)
    optimizer = wrapper(model, precision)
    before = copies(model)
    for _ in range(SETTLED if precision == "fp16" else 3):
        losses = model.train_step(steps.segmentation_batch(), optimizer)
        for name, value in losses.items():
            assert value.isfinite().all(), name
            assert value.dtype == torch.float32, name
    still = unchanged(model, before)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(still) <= 0.02 * len(trained), still
    if precision == "fp16" and gpu.type == "cuda":
        assert 1 <= optimizer.loss_scaler.get_scale() <= 2**16
