"""Processes of a run on mmengine: joined by a launcher, with gradients averaged between them."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast, get_world_size, init_dist
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from eva_runs import processes


@MODEL_WRAPPERS.register_module()
class EVADataParallel(MMDistributedDataParallel):
    """mmengine's wrapper, with gradients that lie in its buckets; SyncBN needs GPUs."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        options = {"gradient_as_bucket_view": True} | options
        if torch.cuda.is_available():
            options = {"device_ids": device_ids, "broadcast_buffers": False} | options
            super().__init__(module, **options)
        else:
            super().__init__(revert_sync_batchnorm(module), **options)
            self.register_comm_hook(
                None, lambda _, bucket: processes.deterministic_average_hook(bucket)
            )


def join_processes(cfg: Config) -> None:
    """Join those of a launcher; on CPUs by gloo, where mmengine would choose a GPU."""
    if cfg.launcher == "none":
        return
    if torch.cuda.is_available():
        processes.end_with_launcher()
        init_dist(cfg.launcher, **cfg.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
    else:
        processes.join_group("gloo")
    wrapper = {name: cfg[name] for name in ("find_unused_parameters",) if name in cfg}
    cfg.setdefault("model_wrapper_cfg", dict(type="EVADataParallel", **wrapper))


def unwrap(model: Any) -> Any:
    """Return the model inside of a wrapper for several processes."""
    return model.module if is_model_wrapper(model) else model


def broadcast_buffers(model: nn.Module) -> None:
    """Take the main process's buffers, such as statistics of batch norm."""
    if get_world_size() > 1:
        for value in model.buffers():
            broadcast(value)
