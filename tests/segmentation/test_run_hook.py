"""Losses and gradients that are not finite stop a run before the optimizer's step."""

import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from eva_openmmlab.hooks import RunHook
from eva_openmmlab.step_watch import MAX_SKIPPED
from eva_runs import checkpoint_store
from eva_runs.errors import NonFiniteError
from eva_segmentation.commands import train
from eva_segmentation.model.segmentor import EVASegmentor


def test_a_gradient_stops_a_run_before_the_step_and_names_the_images(
    tiny_run, fails, monkeypatch, tmp_path
):
    loss, seen = EVASegmentor.loss, []

    def spoilt(self, inputs, samples):
        losses = loss(self, inputs, samples)
        seen.append([sample.img_path for sample in samples])
        if len(seen) == 3:
            factor = self.decode_head.conv_seg.bias.sum() * 0 + 1
            factor.register_hook(lambda gradient: gradient * float("nan"))
            losses = {name: value * factor for name, value in losses.items()}
        return losses

    open_atomic = checkpoint_store.open_atomic

    def slowly(*arguments):
        time.sleep(0.5)
        return open_atomic(*arguments)

    # the second save is not over at the third step
    monkeypatch.setattr(checkpoint_store, "open_atomic", slowly)
    monkeypatch.setattr(EVASegmentor, "loss", spoilt)
    line = fails(train, tiny_run / "tiny.py", "--work-dir", tmp_path)
    assert all(name in line for name in ("gradient", "iteration 3", *seen[2]))
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")
    state = torch.load(tmp_path / "iter_2.pth", weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())
    assert not list(tmp_path.glob("best_*"))


class Layer(nn.Linear):
    data_preprocessor = None

    def forward(self, value, **_):
        return {"loss": super().forward(value).sum()}


@pytest.fixture
def hooked():
    """Function: a layer with an optimizer's wrapper, watched by a hook; steps on a batch."""

    def make(wrap, fused=False):
        layer, hook = Layer(2, 1), RunHook()
        wrapper = wrap(torch.optim.SGD(layer.parameters(), 0.1, fused=fused))
        data = SimpleNamespace(dataset=None)
        runner = SimpleNamespace(
            model=layer, train_dataloader=data, optim_wrapper=wrapper, work_dir="", world_size=1,
            max_iters=100, _train_loop=None,
        )  # fmt: skip
        hook._begin = lambda runner: None
        hook.before_train(runner)
        done = []

        def step(value=1.0, gradient=None):
            samples = [SimpleNamespace(img_path=f"{len(done)}.png")]
            hook.before_train_iter(runner, len(done), {"data_samples": samples})
            loss = layer(torch.full((1, 2), value))["loss"]
            if gradient is not None:
                loss.register_hook(lambda _: torch.tensor(gradient))
            wrapper.update_params(loss)
            hook.after_train_iter(runner, len(done))
            done.append(loss)

        return layer, wrapper, hook, step

    return make


def test_each_batch_of_a_step_counts(hooked):
    layer, _, _, step = hooked(lambda one: OptimWrapper(one, accumulative_counts=3))
    before = layer.weight.clone()
    step()
    with pytest.raises(NonFiniteError, match=r"iteration 2, .* process 0: images: 1\.png$"):
        step(float("inf"))  # in the middle of the step
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.grad, torch.ones_like(before) / 3)


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def scaled(hooked, monkeypatch, request):
    """The same with a loss scale, as on a GPU."""
    amp = "mmengine.optim.optimizer.amp_optimizer_wrapper"
    monkeypatch.setattr(f"{amp}.is_cuda_available", lambda: True)
    cpu = lambda **options: torch.amp.GradScaler("cpu", **options)  # noqa: E731
    monkeypatch.setattr(f"{amp}.GradScaler", cpu)
    return hooked(lambda one: AmpOptimWrapper(optimizer=one), request.param)


def test_a_loss_scale_skips_steps_that_overflow(scaled):
    layer, wrapper, _, step = scaled
    before, scale = layer.weight.clone(), wrapper.loss_scaler.get_scale()
    for _ in range(MAX_SKIPPED):
        step(gradient=float("inf"))
    assert torch.equal(layer.weight, before)
    assert wrapper.loss_scaler.get_scale() == scale / 2**MAX_SKIPPED
    for gradient in (1.0, float("inf"), float("inf")):
        step(gradient=gradient)
    assert not torch.equal(layer.weight, before)


def test_a_loss_scale_that_fits_nothing_ends_the_run(scaled):
    *_, step = scaled
    for _ in range(MAX_SKIPPED):
        step(gradient=float("inf"))
    with pytest.raises(NonFiniteError, match=f"{MAX_SKIPPED + 1} steps"):
        step(gradient=float("inf"))
