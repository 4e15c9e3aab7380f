"""DeepSpeed's engine against plain PyTorch, and steps that are left out."""

import copy

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from timm.optim import Lamb

from eva_backbone.layer_decay import param_groups_layer_decay
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import MovingAverage, TrainingEngine
from eva_engine.steps.parameter_groups import ParameterGroup

LARS = {"name": "lars", "betas": (0.9, 0.999), "eps": 1e-8}
ADAMW = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.05}


@pytest.fixture
def make_engine(program, device, tmp_path):
    """Function: an engine around the same small model each time; the first layer may be frozen."""

    def make(
        precision="fp32", stage=1, *, accumulate=1, clip_grad=0.0, freeze=False, limits=None,
        **optimizer,
    ):  # fmt: skip
        torch.manual_seed(0)
        model = program.Model(dropout=0.0)
        model.blocks[0].requires_grad_(not freeze)
        run = RunConfig(output=tmp_path, precision=precision, zero_stage=stage,
                        accumulate=accumulate, batch_size=4)  # fmt: skip
        settings = OptimizerConfig(
            **ADAMW | {"clip_grad": clip_grad, "layer_decay": 0.8} | optimizer
        )
        groups = program.make_groups(model, settings)
        return TrainingEngine(model, groups=groups, optimizer=settings, run=run, limits=limits)

    return make


def micro_batches(count, accumulate, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, accumulate, 4, 6, generator=generator)


def gradients(engine, batches, *, factor=1.0):
    """Forward and backward passes of a step; `factor` may spoil the first."""
    for number, x in enumerate(batches):
        last = number == len(batches) - 1
        engine.engine.set_gradient_accumulation_boundary(last)
        out = engine.engine(x.to(next(engine.module.parameters()).dtype)).float()
        engine.backward(out.square().mean() * (1.0 if number else factor), last=last)


def train(engine, steps, *, skip_at=()):
    engine.set_learning_rate(ADAMW["lr"])
    results = []
    for number, batches in enumerate(steps):
        skip = number in skip_at
        gradients(engine, batches, factor=float("nan") if skip else 1.0)
        assert engine.gradients_are_finite() is not skip
        results.append(engine.step(skip=skip))
    return results


def whole_state(engine):
    """Weights, master weights and optimizer state, as tensors that later steps leave alone."""
    state = [value.clone() for value in engine.module.state_dict().values()]
    state += [part.clone() for _, part in engine.master_weights()]
    adamw = engine.optimizer.optimizer if engine.zero_stage else engine.optimizer
    moments = [value for values in adamw.state.values() for value in values.values()]
    assert moments
    return state + [moment.clone() for moment in moments]


def assert_same_state(one, other):
    assert len(one) == len(other)
    assert all(first.equal(second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize(("stage", "clip_grad"), [(0, 0.0), (1, 0.02)])
def test_equals_plain_pytorch(make_engine, stage, clip_grad):
    engine = make_engine(stage=stage, accumulate=2, clip_grad=clip_grad)
    model = copy.deepcopy(engine.module)
    groups = param_groups_layer_decay(model, depth=2, layer_decay=0.8, **{
        name: ADAMW[name] for name in ("lr", "weight_decay")})  # fmt: skip
    adamw = torch.optim.AdamW(groups, **ADAMW)
    steps = micro_batches(6, 2)
    norms = []
    for batches in steps:
        loss = sum(model(x).square().mean() for x in batches) / 2
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_grad or 1e9).item())
        adamw.step()
        adamw.zero_grad()
    results = train(engine, steps)
    assert [norm for norm, _ in results] == pytest.approx(norms, rel=1e-5)
    assert all(applied for _, applied in results)
    for one, other in zip(engine.module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_group_without_parameters_is_left_out(program, device, tmp_path, stage):
    model, run = program.Model(dropout=0.0), RunConfig(output=tmp_path, zero_stage=stage)
    optimizer = OptimizerConfig(**ADAMW)
    groups = [ParameterGroup(name="none", params=[]), *program.make_groups(model, optimizer)]
    engine = TrainingEngine(model, groups=groups, optimizer=optimizer, run=run)
    assert engine.optimizer_state()["state"].keys() == engine.parameters.keys()


@pytest.mark.parametrize(("name", "precision", "stage", "accumulate"), [
    ("adamw", "fp32", 1, 2), ("adamw", "bf16", 1, 1), ("lamb", "fp32", 0, 2),
    ("deepspeed_lamb", "bf16", 1, 1),
])  # fmt: skip
def test_a_skipped_step_leaves_no_trace(make_engine, name, precision, stage, accumulate):
    steps = micro_batches(5, accumulate)
    engine = make_engine(precision, stage, accumulate=accumulate, name=name)
    train(engine, steps[:2])
    before = whole_state(engine)
    ((_, applied),) = train(engine, steps[2:3], skip_at=[0])
    assert not applied
    assert_same_state(before, whole_state(engine))
    train(engine, steps[3:])
    other = make_engine(precision, stage, accumulate=accumulate, name=name)
    train(other, [steps[0], steps[1], steps[3], steps[4]])
    assert_same_state(whole_state(engine), whole_state(other))


@pytest.mark.parametrize(
    ("precision", "stage", "freeze"), [("fp32", 0, False), ("fp32", 1, True), ("bf16", 1, False)]
)
def test_moving_average(make_engine, precision, stage, freeze):
    """It is d^n w_0 + (1 - d) sum d^(n - i) w_i of the master weights."""
    engine = make_engine(precision, stage, freeze=freeze)
    average = MovingAverage(engine, decay=0.9)
    history = [engine.full_precision_state()]
    for batches in micro_batches(6, 1):
        train(engine, [batches])
        average.update()
        history.append(engine.full_precision_state())
    weights = [0.9**6] + [0.1 * 0.9 ** (6 - i) for i in range(1, 7)]
    now = whole_state(engine)
    with average.applied():
        inside = engine.full_precision_state()
        for name, value in engine.module.state_dict().items():
            assert value.equal(inside[name].to(value.dtype))
    assert_same_state(now, whole_state(engine))
    for name, value in inside.items():
        expected = sum(w * state[name].double() for w, state in zip(weights, history, strict=True))
        torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
        if "blocks.0" not in name or not freeze:
            assert (value - history[-1][name]).abs().max() > 1e-4


class Linear(torch.nn.Module):
    """Its output is the sum of its weights; its gradient is the input, whatever the weights are."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(6, 1, bias=False) for _ in range(2)])

    def forward(self, x):
        return sum(block(x) for block in self.blocks)


def make_linear(program, run):
    model, optimizer = Linear(), OptimizerConfig(**ADAMW)
    groups = program.make_groups(model, optimizer)
    return TrainingEngine(model, groups=groups, optimizer=optimizer, run=run)


@pytest.mark.parametrize(("precision", "stage", "small"), [
    ("fp32", 0, 2.0**-9), ("fp32", 1, 2.0**-9), ("bf16", 1, 2.0**-9), ("fp16", 1, 2.0**-12),
])  # fmt: skip
def test_many_small_gradients_add_up(
    program, device, tmp_path, monkeypatch, precision, stage, small
):
    """One gradient of 1 and fifteen that half precision would leave out one by one."""
    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    run = RunConfig(output=tmp_path, precision=precision, zero_stage=stage, accumulate=16)
    engine = make_linear(program, run)
    for step in range(2):  # and nothing of a step is left for the next
        for number in range(16):
            engine.engine.set_gradient_accumulation_boundary(number == 15)
            x = torch.full((1, 6), 1.0 if number == 0 else small)
            out = engine.engine(x.to(next(engine.module.parameters()).dtype)).float()
            engine.backward(out.sum(), last=number == 15)
        assert engine.gradients_are_finite()
        norm, applied = engine.step(skip=step == 0)
        assert applied is (step == 1)
    # the loss is a mean over 16; 12 weights have the same gradient
    assert norm == pytest.approx(12**0.5 * (1 + 15 * small) / 16, rel=1e-5)


def one_step_of_lamb(lamb, groups, flat):
    """With `flat`, tensors that hold a group each, the optimizer sees these and not the weights."""
    for group, one in zip(groups, flat, strict=True):
        one.grad = torch.cat([p.grad.view(-1) for p in group.params])
    lamb.step()
    for group, one in zip(groups, flat, strict=True):
        parts = one.detach().split([p.numel() for p in group.params])
        for parameter, part in zip(group.params, parts, strict=True):
            parameter.data.copy_(part.view_as(parameter))


@pytest.mark.parametrize("clip_grad", [0.02])
def test_lamb_is_that_of_timm(program, device, tmp_path, clip_grad):
    """Each tensor by itself; with ZeRO-1, and one process, a parameter group is one tensor."""
    results = {}
    for stage in (0, 1):
        torch.manual_seed(0)
        models = [program.Model(dropout=0.0) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        groups, others = ([
            ParameterGroup(name=name, params=[p for p in model.parameters() if p.ndim == ndim],
                           weight_decay=decay)
            for name, ndim, decay in (("matrices", 2, 0.3), ("vectors", 1, 0.0))
        ] for model in models)  # fmt: skip
        settings = OptimizerConfig(name="lamb", clip_grad=clip_grad, **ADAMW)
        run = RunConfig(output=tmp_path, zero_stage=stage, accumulate=2, batch_size=4)
        engine = TrainingEngine(models[0], groups=groups, optimizer=settings, run=run)
        flat = [torch.nn.Parameter(torch.cat([p.detach().view(-1) for p in group.params]))
                for group in others]  # fmt: skip
        lamb = Lamb(
            [
                {"params": [one] if stage else group.params, "weight_decay": group.weight_decay}
                for group, one in zip(others, flat, strict=True)
            ],
            **{name: ADAMW[name] for name in ("lr", "betas", "eps")},
            max_grad_norm=None,
        )
        for batches in micro_batches(6, 2):
            models[1].zero_grad()
            (sum(models[1](x).square().mean() for x in batches) / 2).backward()
            torch.nn.utils.clip_grad_norm_(models[1].parameters(), clip_grad or 1e9)
            one_step_of_lamb(lamb, others, flat) if stage else lamb.step()
        train(engine, micro_batches(6, 2))
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        results[stage] = models[0].head.weight.detach()
    assert (results[0] - results[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("precision", "stage", "freeze"), [("fp32", 0, False), ("fp32", 1, True), ("bf16", 1, False)]
)
def test_weights_stay_within_their_limits(make_engine, precision, stage, freeze):
    """Weights, master weights and their average; a frozen one, and others, are left alone."""
    limits = {"blocks.0.bias": (-0.1, 0.1), "head.bias": (0.25, 0.5)}
    engine = make_engine(precision, stage, freeze=freeze, limits=limits)
    free = make_engine(precision, stage, freeze=freeze)
    average = MovingAverage(engine, decay=0.5)
    first = engine.full_precision_state()
    for batches in micro_batches(3, 1):
        train(engine, [batches])
        train(free, [batches])
        average.update()
    state = engine.full_precision_state()
    assert state["head.bias"].item() == 0.25
    assert free.full_precision_state()["head.bias"].item() < 0.2
    assert dict(engine.module.named_parameters())["head.bias"].item() == 0.25
    if freeze:
        assert state["blocks.0.bias"].equal(first["blocks.0.bias"])
    else:
        assert state["blocks.0.bias"].abs().max() <= 0.1
    with average.applied():
        averaged = engine.full_precision_state()["head.bias"].item()
    assert averaged == pytest.approx(0.125 * first["head.bias"].item() + 0.875 * 0.25)


def test_lars_by_its_definition(make_engine):
    """g + wd w, scaled by 0.001 |w| / |g + wd w| for matrices; momentum; You et al., 1708.03888."""
    engine = make_engine(stage=0, lr=0.5, momentum=0.9, weight_decay=0.0, **LARS)
    engine.set_learning_rate(0.5)
    scales = {id(p): g["lr_scale"] for g in engine.optimizer.param_groups for p in g["params"]}
    expected = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
    momentum = {name: torch.zeros_like(p) for name, p in expected.items()}
    for batches in micro_batches(3, 1):
        gradients(engine, batches)
        for name, parameter in engine.module.named_parameters():
            grad = parameter.grad.clone()
            if grad.ndim > 1:
                grad *= 0.001 * parameter.detach().norm() / grad.norm()
            momentum[name] = 0.9 * momentum[name] + grad
            expected[name] -= 0.5 * scales[id(parameter)] * momentum[name]
        engine.step()
        for name, parameter in engine.module.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], atol=1e-7, rtol=1e-5)


def test_a_state_of_frozen_parameters_trains_no_others(make_engine):
    frozen = make_engine(freeze=True)
    train(frozen, micro_batches(1, 1)[None])
    with pytest.raises(ValueError, match=r"blocks\.0.* was frozen and is to be trained now"):
        make_engine().load_optimizer_state(frozen.optimizer_state())
