"""Data parallelism of mmengine's runs."""

import torch
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from eva_openmmlab.data_parallel import EVADataParallel


def test_gradients_lie_in_the_bucket_that_is_exchanged(device):
    """The fixture has a process group of one."""
    model = nn.Linear(3, 2)
    wrapped = MODEL_WRAPPERS.build(dict(type="EVADataParallel", module=model, device_ids=[0]))
    assert type(wrapped) is EVADataParallel
    wrapped(torch.ones(1, 3)).sum().backward()
    assert len({one.grad.untyped_storage().data_ptr() for one in model.parameters()}) == 1
