"""Names of settings with what they may be, and sentences; nothing heavy is imported."""

import math
from collections.abc import Collection, Iterable
from typing import Any

from eva_detection.config.words import USUAL_SETTINGS
from eva_runs.command_line.slips import SlipError, hint

# Sections whose names are read one by one, and names in them that a config may leave out.
_FLAT = ("train", "dataloader", "test")
_DEEPER = (["train", "amp"], ["test", "aug"])
OPTIONAL_SETTINGS = (
    "train.accumulate",
    "train.amp.precision",
    "train.cudnn_benchmark",
    "train.max_bad_images",
    "train.progress_bar",
    "train.seed",
    "dataloader.evaluator",
)
CHECKPOINTER = frozenset({"period", "max_to_keep", "file_prefix"})
IMAGE_FORMATS = ("RGB", "BGR", "L", "YUV-BT.601")
PRECISIONS = ("fp16", "bf16", "fp32")
# Functions -> where arguments go that they do not name.
PASSED_ON = {
    "detectron2.data.build.build_detection_train_loader": (
        "detectron2.data.build.build_batch_data_loader"
    ),
    "detectron2.data.build.build_batch_data_loader": "torch.utils.data.DataLoader",
}
# name -> (lowest, highest, whether it may be left out); more than the highest is a slip
INTEGERS = {
    "train.max_iter": (1, 10**9, False),
    "train.accumulate": (1, 4096, True),
    "train.max_bad_images": (0, 10_000, True),
    "train.eval_period": (0, 10**9, False),
    "train.log_period": (1, 10**9, False),
    "train.seed": (-1, 2**32 - 10_000, True),
    "train.checkpointer.period": (1, 10**9, False),
    "train.checkpointer.max_to_keep": (1, 10**9, True),
    "dataloader.train.total_batch_size": (1, 2**20, True),
    "dataloader.train.num_workers": (0, 1024, True),
    "dataloader.test.num_workers": (0, 1024, True),
    "dataloader.test.batch_size": (1, 2**16, True),
    "model.backbone.square_pad": (0, 2**15, True),
    "model.roi_heads.num_classes": (1, 10**6, True),
}
YES_OR_NO = (
    "train.amp.enabled",
    "train.progress_bar",
    "train.cudnn_benchmark",
    "train.ddp.fp16_compression",
    "train.ddp.broadcast_buffers",
    "train.ddp.find_unused_parameters",
    "dataloader.train.aspect_ratio_grouping",
)
# name -> (whether it may be 0, the highest)
NUMBERS = {
    "optimizer.lr": (False, math.inf),
    "optimizer.max_grad_norm": (True, math.inf),
    "optimizer.weight_decay": (True, math.inf),
    "lr_multiplier.warmup_length": (True, 1),
}
CHOICES = {
    "train.amp.precision": PRECISIONS,
    "dataloader.train.mapper.image_format": IMAGE_FORMATS,
    "dataloader.test.mapper.image_format": IMAGE_FORMATS,
}


def check_names(
    known: Collection[str], overrides: Iterable[str], *, of: Iterable[str] = ()
) -> None:
    """Refuse overrides that nothing reads.

    Args:
        known: Names of sections, and of what is in those that are read name by name.
        overrides: `key=value` strings of the command line.
        of: Names of which everything below is accepted.

    Raises:
        SlipError: For an unknown key, with the closest known ones.
    """
    accepted = {*of}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        parts = key.split(".")
        read = 3 if parts[:2] in _DEEPER else 2 if parts[0] in _FLAT else 1
        name = ".".join(parts[:read])
        above = {".".join(parts[:count]) for count in range(1, read + 1)}
        if name not in known and not above & accepted:
            usual = [one.partition("=")[0] for one in USUAL_SETTINGS]
            names = ", ".join(sorted(known))
            raise SlipError(
                f"unknown setting {key!r}: nothing reads it"
                + hint(key, dict.fromkeys([*known, *usual]), otherwise=f"; known: {names}")
            )


def check_value(name: str, value: Any) -> None:
    """Refuse a value that a setting of the tables of this module cannot have.

    Args:
        name: Name of any setting.
        value: Its value.

    Raises:
        ValueError: With what it may be.
    """
    if name in INTEGERS:
        least, most, optional = INTEGERS[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (value is None and optional) and not (whole and least <= value <= most):
            raise ValueError(f"{name}={value!r} must be an integer from {least} to {most:,}")
    if value is None:
        return
    if name in YES_OR_NO and not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(CHOICES[name])}")
    if name in NUMBERS:
        zero, highest = NUMBERS[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0 or not (zero or value):
            lowest = "not negative" if zero else "positive"
            raise ValueError(f"{name}={value!r} must be a finite number, {lowest}")
        if value > highest:
            raise ValueError(f"{name}={value!r} must be at most {highest}")


def check_below(section: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse names in a section that nothing reads.

    Args:
        section: Name of the section.
        names: Names in it.
        known: Those that are read.

    Raises:
        SlipError: For the first one that is not known.
    """
    for name in names:
        if name not in known:
            names = ", ".join(sorted(known))
            raise SlipError(
                f"unknown setting {section}.{name}: nothing reads it"
                + hint(name, known, otherwise=f"; known: {names}")
            )


def refused_argument(key: str, name: str, *, of: str, known: Collection[str]) -> str:
    """Write the sentence for an argument that a class or function does not take.

    Args:
        key: Place of the class or function in the config.
        name: The argument.
        of: Name of the class or function.
        known: Arguments that it takes.
    """
    known = [one for one in dict.fromkeys(known) if one not in ("args", "kwargs")]
    close = hint(name, known, otherwise=f"; known: {', '.join(known)}")
    return f"unknown setting {key}.{name}: {of} takes no {name!r}{close}"
