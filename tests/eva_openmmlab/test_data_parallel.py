"""Data parallelism of mmengine's runs."""

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from eva_openmmlab import hooks


@pytest.fixture(autouse=True)
def _group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_gradients_lie_in_the_bucket_that_is_exchanged():
    model = nn.Linear(3, 2)
    wrapped = MODEL_WRAPPERS.build(dict(type="EVADataParallel", module=model, device_ids=[0]))
    assert type(wrapped) is hooks.EVADataParallel
    wrapped(torch.ones(1, 3)).sum().backward()
    assert len({one.grad.untyped_storage().data_ptr() for one in model.parameters()}) == 1
