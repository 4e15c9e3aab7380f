"""Several processes on CPUs, and what the runner does to a model before them."""

import logging

import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from eva_openmmlab.training.runner import EVARunner


@pytest.fixture
def runner(monkeypatch):
    """One process of two on CPUs, without the rest of a run; it wraps nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Runner, "wrap_model", lambda self, cfg, model: (cfg, model))
    bare = EVARunner.__new__(EVARunner)
    bare._distributed, bare.logger = True, logging.getLogger("run")
    return bare


def test_batch_norm_over_processes_gives_way_on_cpus(runner, caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4), nn.GroupNorm(2, 4))
    model[1].weight.data.fill_(0.5)
    cfg, wrapped = runner.wrap_model(None, model)
    assert cfg == {"type": "MMDistributedDataParallel", "device_ids": None}
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules())
    assert wrapped.state_dict().keys() == model.state_dict().keys()
    assert (wrapped[1].weight == 0.5).all()
    wrapped(torch.randn(2, 3, 4, 4)).sum().backward()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "SyncBN needs a GPU" in caplog.text


def test_a_model_without_it_is_left_alone_and_a_named_wrapper_is_kept(runner, caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    named = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    assert runner.wrap_model(named, model) == (named, model)
    assert not caplog.records


def test_one_process_keeps_it(runner, caplog):
    runner._distributed = False
    model = nn.Sequential(nn.SyncBatchNorm(4))
    assert runner.wrap_model(None, model) == (None, model)
    assert isinstance(model[0], nn.SyncBatchNorm)
    assert not caplog.records
