"""Parts of a config, built, with an error that says which part it is about; initial weights."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from eva_backbone import LoadReport, load_pretrained, no_init_weights
from eva_backbone.lora import LoraSettings
from eva_data.bands import Bands
from eva_report.terminal import SHOWN
from eva_runs.adapters import Adapters
from eva_runs.errors import single_line_message
from eva_runs.processes import deterministic_average_hook

logger = logging.getLogger(__name__)

# What a file of a backbone, or of a detector without masks, cannot have.
_HEADS = (r"backbone\.simfp_", r"proposal_generator\.", r"roi_heads\.")
# What depends on the classes: from Objects365 to COCO and LVIS these start from scratch.
_FEDERATED = r"roi_heads\.box_predictor\.(\d\.)?fed_loss_cls_weights$"
_MASK_HEAD = r"roi_heads\.mask_head\."  # left in the file where the detector has none
_CLASSIFIERS = (
    r"roi_heads\.box_predictor\.(\d\.)?(cls_score|bbox_pred)\.",
    r"roi_heads\.mask_head\.predictor\.",
    _FEDERATED,
)


def target_of(node: Any) -> Any:
    """Return the class or function that a node of a config builds; None for another node."""
    target = node.get("_target_")
    return locate(target) if isinstance(target, str) else target


@contextlib.contextmanager
def error_context(
    subject: str, kinds: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Let errors of a block be ValueErrors that say what they are about, but for those of files."""
    try:
        yield
    except kinds as error:
        if isinstance(error, OSError | MemoryError):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{subject}: {kind}{single_line_message(error)}") from error


def build(cfg: Any, name: str, make: Callable[[Any], Any] = instantiate) -> Any:
    """Instantiate a part of a config; an error names the part."""
    with error_context(f"{name} cannot be built"):
        return make(cfg)


def resolve_errors() -> contextlib.AbstractContextManager[None]:
    """Let a value that is missing, or refers to nothing, be a ValueError."""
    return error_context("the config cannot be resolved", OmegaConfBaseException)


def load_initial_weights(
    model: nn.Module, source: str, *, complete: bool = False
) -> LoadReport | None:
    """Load a backbone or a complete detector before training or evaluation.

    The source is an official or bundled name, a path, a run's folder, or "" for none. With
    `complete` a file that lacks any part of the detector is refused (for evaluation).

    Raises:
        ValueError: If the file does not fit, or holds a backbone where a detector is needed; the
            model is then unchanged.
        FileNotFoundError: If the file is missing.
    """
    if not source:
        if complete:
            raise ValueError("evaluation needs weights: set train.init_checkpoint=NAME_OR_FILE")
        return None
    partly: dict[str, Any] = dict(
        allow_missing=_HEADS, allow_skipped=(_FEDERATED, _MASK_HEAD), reinitialise=_CLASSIFIERS
    )
    options = {} if complete else partly
    report = load_pretrained(model, source, complete=complete, **options)
    if report.from_scratch:
        logger.info("%s", report.from_scratch, extra=SHOWN)
    return report


def build_model(cfg: DictConfig, *, load: bool) -> tuple[nn.Module, Adapters | None]:
    """Build the model, with initial weights or to be restored, and its adapters."""
    lora, source = lora_of(cfg), cfg.train.init_checkpoint
    with no_init_weights(bool(source or not load)):
        model = build(cfg.model, "model")
    if source and (load or lora.rank):  # the base is not in a checkpoint
        load_initial_weights(model, source)
    adapters = Adapters(model, lora, source) if lora.rank else None
    logger.info("Model:\n%s", model)
    return model.to(cfg.train.device), adapters


def build_optimizer(cfg: DictConfig, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """Build the optimizer of a model, and the multiplier of its learning rates."""
    multiplier = build(cfg.lr_multiplier, "lr_multiplier")
    options = copy.deepcopy(cfg.optimizer)
    options.params.model = model
    return build(options, "optimizer"), multiplier


def wrap_distributed(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap the model if there are several processes; gradients are sent as fp16 with fp16 alone."""
    ddp: dict[str, Any] = {"gradient_as_bucket_view": True} | dict(cfg.train.ddp)
    # without a loss scale, gradients below 6e-8 would become 0
    if training_precision(cfg.train) != "fp16":
        ddp["fp16_compression"] = False
    ddp |= {"device_ids": None} if cfg.train.device == "cpu" else {}
    wrapped = build(ddp, "train.ddp", lambda options: create_ddp_model(model, **options))
    if wrapped is not model and cfg.train.device == "cpu":
        wrapped.register_comm_hook(None, lambda _, bucket: deterministic_average_hook(bucket))
    return wrapped


def bands_of(cfg: DictConfig) -> Bands | None:
    """Return the bands of the images of a config's detector; None for RGB."""
    return Bands.from_json(OmegaConf.select(cfg, "dataloader.test.mapper.bands"))


def image_side(cfg: DictConfig) -> int:
    """Return the side of the square that images are padded to, or lie in the corner of; or 0."""
    backbone = cfg.model.backbone
    return int(backbone.get("square_pad", 0) or backbone.net.get("canvas", 0))


def training_precision(train: DictConfig) -> Any:
    """Return the precision of a training: "fp32", "fp16" or "bf16"."""
    return train.amp.get("precision", "fp16") if train.amp.enabled else "fp32"


def lora_of(cfg: DictConfig) -> LoraSettings:
    """Return the adapters of a training, of rank 0 if it has none."""
    return LoraSettings.of(OmegaConf.to_container(cfg.get("lora") or OmegaConf.create()))
