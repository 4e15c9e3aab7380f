"""mmengine's runner, with weights by name that either fit or stop the run."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint
from mmseg.registry import RUNNERS
from torch import nn

from eva_segmentation.weights import check_resumed, load_segmentor, safe_metadata


class UnfitWeightsError(ValueError):
    """Weights that are not there or do not fit; the message says which and why."""


@RUNNERS.register_module()
class EVARunner(Runner):
    """Runner of the configs (`runner_type`), here and under mmsegmentation's own `tools/train.py`.

    `load_from` may name an official file. mmengine would load what fits and log the rest; here a
    file that does not fit is an error. A classifier of other classes starts anew in training.
    `env_cfg.matmul_precision` ("highest", "high") is the precision of float32 matrix products on
    a GPU; "high" is TF32, which the official runs used without naming it.
    """

    _has_loaded: bool

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes and precision.

        Args:
            env_cfg: mmengine's settings and `matmul_precision`.
        """
        if self.distributed and not torch.cuda.is_available() and not is_distributed():
            torch.distributed.init_process_group("gloo")  # mmengine would choose a GPU
        super().setup_env(env_cfg)
        torch.set_float32_matmul_precision(env_cfg.get("matmul_precision", "highest"))

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model for data parallelism, on CPU too.

        Args:
            model_wrapper_cfg: Config of the wrapper, or None.
            model: The segmentor.

        Returns:
            The wrapped model, or the model itself in a run of one process.
        """
        if self.distributed and not torch.cuda.is_available():
            if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
                self.logger.warning("SyncBN needs a GPU: each process normalises its own batches")
                model = revert_sync_batchnorm(model)
            if model_wrapper_cfg is None:
                model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None)
        wrapped: nn.Module = super().wrap_model(model_wrapper_cfg, model)
        return wrapped

    def dump_config(self) -> None:
        """Save the config, but for a run that continues: only when its checkpoint fits."""
        if not self._resume:
            super().dump_config()

    def load_or_resume(self) -> None:
        """Continue the run of the work folder if asked to and possible, else load `load_from`.

        Raises:
            UnfitWeightsError: A ValueError, if the file does not fit the model or is not there.
        """
        if self._has_loaded:
            return
        try:
            self._load_or_resume()
        except (ValueError, FileNotFoundError) as error:
            raise UnfitWeightsError(str(error)) from error
        if self._resume:
            super().dump_config()

    def _load_or_resume(self) -> None:
        model = self.model.module if is_model_wrapper(self.model) else self.model
        # mmengine would continue from `load_from`, which holds the weights before the run
        latest = self._newest_checkpoint() if self._resume else None
        if latest is not None:
            check_resumed(model, latest)
            with safe_metadata():
                self.resume(latest)
            return
        if self._load_from is None:
            return
        segmentor = getattr(model, "module", model)  # test-time augmentation wraps it
        training = isinstance(self._train_loop, BaseLoop)
        report = load_segmentor(segmentor, self._load_from, complete=not training)
        self._has_loaded = True
        self.logger.info("%s", report)
        for name, reason in report.missing.items():
            if reason.startswith("initialised anew"):
                self.logger.warning("%s: %s", name, reason)

    def _newest_checkpoint(self) -> str | None:
        """Of this work folder, which may have been moved or copied since."""
        noted = find_latest_checkpoint(self.work_dir)
        if noted is None:
            return None
        here = Path(self.work_dir) / Path(noted).name
        if not here.is_file() and not Path(noted).is_file():
            raise FileNotFoundError(
                f"{self.work_dir}/last_checkpoint names {noted}, which is not there; name another "
                "checkpoint in it, or remove it to begin anew"
            )
        return str(here if here.is_file() else noted)


def leave() -> None:
    """End the process group, if there is one: gloo may abort a process that merely ends."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
