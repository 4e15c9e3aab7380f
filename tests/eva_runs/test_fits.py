"""Checkpoints of another run are refused with what differs."""

import copy

import pytest
import torch

from eva_runs.fits import check_model, check_optimizer


def model():
    return torch.nn.Linear(3, 2)


def optimizer(net, kind=torch.optim.AdamW, **options):
    made = kind(net.parameters(), lr=0.1, **options)
    net(torch.ones(1, 3)).sum().backward()
    made.step()
    return made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("bias"), "bias"),
        (lambda s: s.update(more=torch.ones(1)), "more"),
        (lambda s: s.update(weight=torch.ones(3, 2)), "weight"),
        (lambda s: s["weight"].fill_(float("nan")), "weight"),
        (lambda s: s.update(bias="text"), "weights"),
    ],
)
def test_weights_of_another_model(change, named):
    net = model()
    state = copy.deepcopy(net.state_dict())
    check_model(state, net)
    change(state)
    with pytest.raises(ValueError, match=named):
        check_model(state, net)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["param_groups"][0]["params"].append(9), "3 tensors"),
        (lambda s: s["state"][0].pop("exp_avg"), "parameter 0"),
        (lambda s: s["state"][1]["exp_avg"].fill_(float("inf")), "exp_avg of parameter 1"),
        (lambda s: s["state"][0].update(exp_avg=torch.ones(5)), r"\(5,\)"),
        (lambda s: s.pop("state"), "state"),
    ],
)
def test_state_of_another_optimizer(change, named):
    made = optimizer(model())
    state = copy.deepcopy(made.state_dict())
    check_optimizer(state, made)
    change(state)
    with pytest.raises(ValueError, match=named):
        check_optimizer(state, made)


def test_state_of_sgd_is_not_adams():
    saved = optimizer(model(), torch.optim.SGD, momentum=0.9).state_dict()
    with pytest.raises(ValueError, match="not Adam"):
        check_optimizer(saved, optimizer(model()))
