"""Checkpoints of another run are refused with what differs."""

import copy

import pytest
import torch

from eva_runs.fits import check_model, check_optimizer, take_settings


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


@pytest.mark.parametrize("first", [0.1, 0.0])
def test_rates_given_anew_keep_what_a_schedule_has_made_of_them(first):
    net = model()
    saved = optimizer(net, weight_decay=0.5).state_dict()
    saved["param_groups"][0] |= {"lr": first / 4, "initial_lr": first}
    made = optimizer(net, weight_decay=0.25)  # of a rate of 0.1
    take_settings(saved, made)
    made.load_state_dict(saved)
    (group,) = made.param_groups
    assert (group["lr"], group["initial_lr"]) == (0.1 / 4 if first else 0.1, 0.1)
    assert group["weight_decay"] == 0.25
