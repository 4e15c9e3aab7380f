"""Losses and gradients that are not finite stop all processes before the optimizer's step."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from mmengine.runner import ValLoop
from torch import nn
from torch.multiprocessing.spawn import start_processes

from eva_openmmlab.training import step_guard
from eva_openmmlab.training.errors import NonFiniteError
from eva_openmmlab.training.loops import EVAValLoop
from eva_openmmlab.training.step_guard import EVAAmpOptimWrapper, EVAOptimWrapper, StepGuard
from eva_runs.interruption import StopSignal
from eva_segmentation.model.segmentor import EVASegmentor
from eva_segmentation.training import train


def batch(*names):
    return {"data_samples": [SimpleNamespace(img_path=name) for name in names]}


def weights(folder, iteration):
    return torch.load(folder / f"iter_{iteration}.pth", weights_only=False)["state_dict"]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_run_stops_before_the_step_and_names_the_images(
    where, tiny_run, launch, monkeypatch, tmp_path
):
    loss, seen = EVASegmentor.loss, []

    def spoilt(self, inputs, samples):
        losses = loss(self, inputs, samples)
        seen.append([sample.img_path for sample in samples])
        if len(seen) == 3:
            factor = self.decode_head.conv_seg.bias.sum() * 0 + 1
            if where == "gradient":
                factor.register_hook(lambda gradient: gradient * float("nan"))
            else:
                factor = factor * float("nan")
            losses = {name: value * factor for name, value in losses.items()}
        return losses

    monkeypatch.setattr(EVASegmentor, "loss", spoilt)
    kinds = {"loss": "The loss", "gradient": "A gradient"}
    message = rf"train\.py: {kinds[where]} became infinite or NaN at iteration 3, and all processes"
    with pytest.raises(SystemExit, match=message) as stop:
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path)
    assert all(name in str(stop.value) for name in seen[2])
    assert len(str(stop.value).splitlines()) == 1
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")
    assert all(value.isfinite().all() for value in weights(tmp_path, 2).values())
    assert not list(tmp_path.glob("best_*"))


def test_a_learning_rate_that_is_far_too_high_ends_the_run(tiny_run, launch, tmp_path):
    rate = ("--cfg-options", "optim_wrapper.optimizer.lr=1e30", "train_cfg.max_iters=8")
    with pytest.raises(SystemExit, match=r"became infinite or NaN .* look at the learning rate"):
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path, *rate)
    assert not (tmp_path / "iter_8.pth").exists()


@pytest.fixture
def stepped():
    """A layer, its optimizer in a wrapper with a guard, and the guard; accumulates two batches."""
    layer = nn.Linear(2, 1)
    wrapper = EVAOptimWrapper(torch.optim.SGD(layer.parameters(), 0.1), accumulative_counts=2)
    wrapper.guard = StepGuard(StopSignal())
    return layer, wrapper, wrapper.guard


def test_all_batches_of_a_step_count(stepped):
    layer, wrapper, guard = stepped
    before = layer.weight.clone()
    for index, value in enumerate((float("inf"), 1.0)):
        guard.begin(index, batch(f"{index}.png"))
        loss = layer(torch.full((1, 2), value)).sum()
        if index == 0:
            wrapper.update_params(loss)  # no step, and nothing is said yet
    with pytest.raises(NonFiniteError, match=r"loss .* at iteration 2, .* of process 0: 0\.png$"):
        wrapper.update_params(loss)
    assert torch.equal(layer.weight, before)


def test_a_request_to_stop_is_agreed_on_at_a_step(stepped):
    layer, wrapper, guard = stepped
    guard.stop.received = "SIGTERM"
    agreed = []
    for index in range(2):
        guard.begin(index, batch("a.png"))
        wrapper.update_params(layer(torch.ones(1, 2)).sum())
        agreed.append(guard.stop_agreed)
    assert agreed == [False, True]


@pytest.fixture
def scaled(monkeypatch):
    """The same with a loss scale, as on a GPU."""
    monkeypatch.setattr(
        "mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available", lambda: True
    )
    monkeypatch.setattr(
        "mmengine.optim.optimizer.amp_optimizer_wrapper.GradScaler",
        lambda **options: torch.amp.GradScaler("cpu", **options),
    )
    layer = nn.Linear(2, 1)
    wrapper = EVAAmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), 0.1))
    wrapper.guard = StepGuard(StopSignal())
    return layer, wrapper


def steps(layer, wrapper, gradients):
    for index, gradient in enumerate(gradients):
        wrapper.guard.begin(index, batch("a.png"))
        loss = layer(torch.ones(1, 2)).sum()
        loss.register_hook(lambda _, value=gradient: torch.tensor(value))
        wrapper.update_params(loss)


def test_a_loss_scale_skips_steps_that_overflow(scaled):
    layer, wrapper = scaled
    before, scale = layer.weight.clone(), wrapper.loss_scaler.get_scale()
    steps(layer, wrapper, [float("inf")] * step_guard.MAX_SKIPPED)
    assert torch.equal(layer.weight, before)
    assert wrapper.loss_scaler.get_scale() == scale / 2**step_guard.MAX_SKIPPED
    steps(layer, wrapper, [1.0, float("inf"), float("inf")])
    assert not torch.equal(layer.weight, before)


def test_a_loss_scale_that_fits_nothing_ends_the_run(scaled):
    layer, wrapper = scaled
    count = step_guard.MAX_SKIPPED + 1
    with pytest.raises(
        NonFiniteError, match=rf"For {count} steps, whatever the loss scale, a grad"
    ):
        steps(layer, wrapper, [float("inf")] * count)


class Loop(EVAValLoop):
    """An evaluation of nothing."""

    def __init__(self, model):
        self._runner = SimpleNamespace(model=model)


def evaluate():
    model = nn.BatchNorm1d(3)
    model.running_mean += torch.distributed.get_rank() + 1
    ValLoop.run = lambda loop: {"mean": loop.runner.model.running_mean.tolist()}
    return Loop(model).run()["mean"]


def test_processes_score_the_statistics_that_are_saved(of_two):
    assert of_two["evaluate"] == [[1.0] * 3] * 2


@pytest.fixture(scope="module")
def of_two(run_started, tmp_path_factory):
    """What each function of `TWICE` gives in two processes of a group, by its name."""
    done = run_started(__file__, folder=tmp_path_factory.mktemp("two"))
    assert done.returncode == 0, done.stderr
    found = {name: [None, None] for name in TWICE}
    for line in done.stdout.splitlines():
        if line.startswith("result "):
            name, rank, result = json.loads(line.removeprefix("result "))
            found[name][rank] = result
    return found


def meet():
    rank = torch.distributed.get_rank()
    layer = nn.Linear(2, 1)
    wrapper = EVAOptimWrapper(torch.optim.SGD(layer.parameters(), 0.1))
    wrapper.guard = StepGuard(StopSignal())
    wrapper.guard.begin(6, batch(f"{rank}.png"))
    try:
        wrapper.update_params(layer(torch.full((1, 2), [1.0, float("nan")][rank])).sum())
    except NonFiniteError as error:
        return str(error)
    return "nothing"


def test_both_processes_stop_for_what_one_of_them_met(of_two):
    found = of_two["meet"]
    assert found[0] == found[1]
    assert found[0].endswith("at these images of process 1: 1.png")


TWICE = {"evaluate": evaluate, "meet": meet}


def _in_a_group(rank, name):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{Path.cwd()}/{name}", rank=rank, world_size=2
    )
    # one write, so that lines of two processes stay apart
    os.write(1, f"result {json.dumps([name, rank, TWICE[name]()])}\n".encode())
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    for name in TWICE:
        start_processes(_in_a_group, (name,), 2, start_method="fork")
