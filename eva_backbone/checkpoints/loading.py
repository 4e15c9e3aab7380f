"""Loading weights: read safely, unwrap, map, resample, load all or nothing, report.

The container, prefix, form of the qkv bias and sizes are found out from the file and the model.
Whatever is left unexplained is an error, and an error leaves the model untouched.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from eva_backbone.checkpoints._key_maps import OF_CLIP, OPTIONAL, SKIPPABLE
from eva_backbone.checkpoints.convert import find_trunk, fuse_qkv_bias, split_qkv_bias
from eva_backbone.checkpoints.fitting import ClipShape, Shape, cast, clips_of, resample
from eva_backbone.checkpoints.reading import Weights, list_names
from eva_backbone.checkpoints.registry import list_official_files
from eva_backbone.vit import VisionTransformer

logger = logging.getLogger(__name__)

_OTHER_SHAPE = "initialised from scratch, other shape in the file"
_OTHER_POOLING = "initialised from scratch, of the class token in the file and not of the mean"


@dataclass(kw_only=True)
class LoadReport:
    """What `load_pretrained` did.

    Attributes:
        source: The file.
        loaded: Names in the model that received the file's values.
        resampled: Loaded names that changed shape: name -> (shape in the file, in the model).
        skipped: Names in the file that were not used -> why.
        missing: Names in the model that the file does not have -> what they start as.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    resampled: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def from_scratch(self) -> str:
        """Name what the file has in another form and starts from scratch; empty if all fits."""
        for reason in (_OTHER_SHAPE, _OTHER_POOLING):
            fresh = [name for name, why in self.missing.items() if why == reason]
            if fresh:
                return f"{list_names(fresh, 2)} of {self.source}: {reason}"
        return ""

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors from {self.source}"]
        for label, reasons in (
            ("resampled {0[0]} -> {0[1]}", self.resampled),
            ("not used ({0})", self.skipped),
            ("not in the file ({0})", self.missing),
        ):
            groups: dict[Any, list[str]] = {}
            for name, reason in reasons.items():
                groups.setdefault(reason, []).append(name)
            lines += [
                f"  {label.format(why)}: {list_names(names, 3)}" for why, names in groups.items()
            ]
        return "\n".join(lines)


def load_pretrained(
    model: nn.Module,
    source: str | os.PathLike[str] | Weights,
    *,
    complete: bool = False,
    allow_missing: Iterable[str] = (),
    allow_skipped: Iterable[str] = (),
    reinitialise: Iterable[str] = (),
    rename: Callable[[str], str] | None = None,
) -> LoadReport:
    """Load weights into a model that contains a `VisionTransformer`.

    Args:
        model: The ViT or any model around it, also on the meta device.
        source: Path of a `.pt`, `.pth` or `.safetensors` file, the name of an official or bundled
            file (`eva_backbone.checkpoints.registry`), or what was read of one.
        complete: Refuse a file that lacks anything of the model (for evaluation).
        allow_missing: Patterns (at the start of the model's names) that the file may lack.
        allow_skipped: Patterns (at the start of the file's names) that need not be used.
        reinitialise: Patterns (at the start of the model's names) that keep the model's values
            where the shapes differ, for classifiers of another class count, or where the file's
            head is of the class token and the model's of the mean.
        rename: Translates each name of the file before all else, for heads whose names changed.

    Returns:
        The report; it is also logged.

    Raises:
        ValueError: If the file is damaged, is not an EVA checkpoint, holds code, or does not fit;
            the model is then unchanged.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    file = Weights.read(source)
    if rename is not None:
        file = replace(file, tensors={rename(name): v for name, v in file.tensors.items()})
    report = LoadReport(source=file.name)
    target = model.state_dict()
    stored, prefix = find_trunk(file.tensors, name=file.name), find_trunk(target, name="the model")
    of_clip = file.name in {entry.name for entry in list_official_files("clip")}
    if not complete and stored == prefix == "" and of_clip:
        stored = "visual."  # as in a file of both towers, whose head is a projection
        file = replace(file, tensors={stored + name: v for name, v in file.tensors.items()})
    renamed = _rename(file.tensors, stored, prefix, report)
    renamed = fuse_qkv_bias(split_qkv_bias(renamed, target), target)
    clips = clips_of(model, file, stored)
    prefixes = (stored, prefix)
    state = _fit(
        renamed, target, prefixes, report, tuple(allow_skipped), tuple(reinitialise), clips
    )
    assign = any(value.is_meta for value in target.values())
    if assign:  # a copy: parameters must not lie in a file that may be written again
        copied = {id(value) for value in renamed.values()}
        state = {n: v.clone() if id(v) in copied else v for n, v in state.items()}
    unexplained = _explain_missing(target, state, prefixes, report, tuple(allow_missing))
    unusable = [n for n in report.missing if complete or target[n].is_meta]
    lacking = unexplained or unusable
    if lacking:
        raise ValueError(
            f"{file.name} lacks {len(lacking)} of the model's names: {list_names(lacking)}; "
            "build what "
            "the file belongs to, pass names as allow_missing (not with complete=True), or build "
            "the model on a real device"
        )
    report.loaded = list(state)
    for where, module in model.named_modules():
        if isinstance(module, VisionTransformer):  # that was built inside `no_init_weights`
            inside = f"{where}." if where else ""
            module.init_missing(
                [n.removeprefix(inside) for n in report.missing if n.startswith(inside)]
            )
    initial = {name: target[name] for name in report.missing}
    model.load_state_dict(state | initial, strict=True, assign=assign)
    logger.info("%s", report)
    return report


def _rename(
    weights: Mapping[str, Tensor], source_prefix: str, target_prefix: str, report: LoadReport
) -> dict[str, Tensor]:
    """Put the trunk's names behind the model's prefix; what lies outside the trunk is skipped."""
    if source_prefix == target_prefix:
        return dict(weights)
    renamed = {}
    of_clip = OF_CLIP if source_prefix.startswith("visual.") else {}
    for name, value in weights.items():
        reason = _first_match(of_clip, name)
        if reason:
            report.skipped[name] = reason
        elif name.startswith(source_prefix):
            renamed[target_prefix + name.removeprefix(source_prefix)] = value
        else:
            report.skipped[name] = f"outside the trunk {source_prefix}*"
    return renamed


def _fit(
    renamed: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    prefixes: tuple[str, str],
    report: LoadReport,
    allow_skipped: tuple[str, ...],
    reinitialise: tuple[str, ...],
    clips: ClipShape | None,
) -> dict[str, Tensor]:
    """Choose, resample and cast the tensors that the model takes."""
    state: dict[str, Tensor] = {}
    unexpected, unfit = [], []
    norm, fc_norm = (f"{prefixes[1]}{part}.weight" for part in ("norm", "fc_norm"))
    other_pooling = fc_norm in target and fc_norm not in renamed and norm in renamed
    for name, value in renamed.items():
        local = name.removeprefix(prefixes[1])
        in_trunk = name.startswith(prefixes[1])
        stored = prefixes[0] + local if in_trunk else name  # its name in the file
        if name not in target:
            reason = _first_match(SKIPPABLE, local)
            if reason or _matches(allow_skipped, stored):
                report.skipped[stored] = reason or "as asked"
            else:
                unexpected.append(stored)
            continue
        if other_pooling and local.startswith("head.") and _matches(reinitialise, name):
            report.skipped[stored] = report.missing[name] = _OTHER_POOLING
            continue
        shape = tuple(target[name].shape)
        try:
            fitted = resample(local, value, shape, clips)
        except RuntimeError as error:
            raise ValueError(
                f"{report.source} holds {stored} {tuple(value.shape)}, which cannot be resampled "
                f"to {shape}"
            ) from error
        if fitted is not None and tuple(fitted.shape) == shape:
            if fitted is not value:
                report.resampled[name] = (tuple(value.shape), shape)
            state[name] = cast(fitted, target[name].dtype, f"{report.source} holds {stored}")
        elif _matches(reinitialise, name):
            report.skipped[stored] = (
                f"{tuple(value.shape)} does not fit {shape}, initialised from scratch"
            )
            report.missing[name] = _OTHER_SHAPE
        else:
            unfit.append(f"{name} {tuple(value.shape)} -> {shape}")
    if unexpected or unfit:
        raise ValueError(
            f"{report.source} does not fit the model. Names that the model does not have (may be "
            f"passed as allow_skipped): {list_names(unexpected) or 'none'}. Other shapes, in the "
            f"file -> in the model (heads may be passed as reinitialise): "
            f"{list_names(unfit) or 'none'}. Build the model that the file belongs to"
        )
    return state


def _explain_missing(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    prefixes: tuple[str, str],
    report: LoadReport,
    allow_missing: tuple[str, ...],
) -> list[str]:
    """Note why the file may lack names of the model; return those without a reason."""
    prefix, unexplained = prefixes[1], []
    for name in (name for name in target if name not in state and name not in report.missing):
        if _matches(allow_missing, name):
            reason: str | None = "as asked"
        elif name.startswith(prefix):
            reason = _first_match(OPTIONAL, name.removeprefix(prefix))
        else:
            reason = None if prefixes[0] == prefix else "outside the trunk, initialised"
        if reason is None:
            unexplained.append(name)
        else:
            report.missing[name] = reason
    return unexplained


def _first_match(patterns: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in patterns.items() if re.match(pattern, name)), None)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(re.match(pattern, name) for pattern in patterns)
