"""DeepSpeed's LAMB, with which EVA-CLIP was trained, against its formula in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.optimizers import build_optimizer
from eva_engine.steps.parameter_groups import ParameterGroup

GOLDEN = Path(__file__).parents[1] / "golden" / "lamb.safetensors"
SETTINGS = {"lr": 5e-2, "betas": (0.9, 0.999), "eps": 1e-8}
DECAY = {"matrix": 0.05, "clamped_below": 0.05}  # others have none


def step_of(weight, gradient, m, v, number, decay, *, lr, betas, eps):
    """One step, the first has number 1: the weights, both averages, and the ratio of norms.

    After `csrc/lamb/fused_lamb_cuda_kernel.cu` of DeepSpeed 0.6.5, mode 1, bias_correction 1.
    """
    m = betas[0] * m + (1 - betas[0]) * gradient
    v = betas[1] * v + (1 - betas[1]) * gradient**2
    update = m / (np.sqrt(v) + eps) + decay * weight
    norms = np.linalg.norm(weight), np.linalg.norm(update)
    ratio = min(max(norms[0] / norms[1], 0.01), 10.0) if all(norms) else 1.0
    step_size = lr * np.sqrt(1 - betas[1] ** number) / (1 - betas[0] ** number)
    return weight - step_size * ratio * update, m, v, ratio


@pytest.fixture(scope="module")
def golden():
    """Name of a tensor -> weights before (float64), three gradients, weights after each step."""
    file = load_file(GOLDEN)
    names = [name.removeprefix("input.weight.") for name in file if "input.weight." in name]
    kinds = "input.weight", "input.gradients", "output.weights"
    return {name: [file[f"{kind}.{name}"] for kind in kinds] for name in names}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_three_steps(golden, dtype, close):
    """Of matrices, biases, norm weights, with and without decay, clamped and not."""
    weights = {
        name: torch.nn.Parameter(torch.tensor(before, dtype=dtype))
        for name, (before, *_) in golden.items()
    }
    groups = [
        {"params": [one for name, one in weights.items() if DECAY.get(name, 0.0) == decay],
         "weight_decay": decay}
        for decay in (0.05, 0.0)
    ]  # fmt: skip
    optimizer = build_optimizer(
        groups, OptimizerConfig(name="deepspeed_lamb", **SETTINGS), zero_stage=0
    )
    for step in range(3):
        for name, (_, gradients, _) in golden.items():
            weights[name].grad = torch.tensor(gradients[step], dtype=dtype)
        optimizer.step()
        for name, (*_, expected) in golden.items():
            actual = weights[name].detach().numpy()
            np.testing.assert_allclose(actual, expected[step], rtol=close, atol=close)


@pytest.mark.parametrize("stage", [0, 1])
def test_of_an_engine(program, device, tmp_path, stage):
    """Each tensor by itself; with ZeRO a parameter group is one tensor."""
    torch.manual_seed(0)
    model = program.Model(dropout=0.0)
    decays = {2: 0.3, 1: 0.0}
    groups = [
        ParameterGroup(
            name=str(ndim),
            params=[p for p in model.parameters() if p.ndim == ndim],
            weight_decay=decay,
        )
        for ndim, decay in decays.items()
    ]
    settings = OptimizerConfig(name="deepspeed_lamb", **SETTINGS)
    run = RunConfig(output=tmp_path, zero_stage=stage, batch_size=4)
    weights = {name: p.detach().numpy().astype(float) for name, p in model.named_parameters()}
    by_group = [[name for name in weights if weights[name].ndim == ndim] for ndim in decays]
    parts = by_group if stage else [[name] for group in by_group for name in group]
    engine = TrainingEngine(model, groups=groups, optimizer=settings, run=run)
    engine.set_learning_rate(SETTINGS["lr"])
    averages = {}
    for number in (1, 2, 3):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
        own = {
            name: torch.tensor(weight, dtype=torch.float32, requires_grad=True)
            for name, weight in weights.items()
        }
        torch.func.functional_call(model, own, x).square().mean().backward()
        for part in parts:
            flat = np.concatenate([weights[name].ravel() for name in part])
            gradient = np.concatenate([own[name].grad.numpy().ravel() for name in part])
            m, v = averages.get(part[0], (np.zeros_like(flat),) * 2)
            decay = decays[weights[part[0]].ndim]
            flat, m, v, _ = step_of(flat, gradient, m, v, number, decay, **SETTINGS)
            averages[part[0]] = m, v
            ends = np.cumsum([weights[name].size for name in part])[:-1]
            for name, piece in zip(part, np.split(flat, ends), strict=True):
                weights[name] = piece.reshape(weights[name].shape)
        engine.engine.set_gradient_accumulation_boundary(True)
        engine.backward(engine.engine(x).square().mean(), last=True)
        engine.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-5, atol=1e-6)
