"""Loading weights: read safely, unwrap, map, resample, load all or nothing, report.

The container, prefix, form of the qkv bias and sizes are found out from the file and the model.
Whatever is left unexplained is an error, and an error leaves the model untouched.
"""

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints._key_maps import (
    COMPUTED,
    OF_CLIP,
    OPTIONAL,
    SKIPPABLE,
    TRUNK_KEY,
)
from eva_backbone.checkpoints.convert import find_trunk, fuse_qkv_bias, split_qkv_bias
from eva_backbone.checkpoints.families import describe_form
from eva_backbone.checkpoints.reading import Weights, list_names
from eva_backbone.checkpoints.registry import list_official_files
from eva_backbone.checkpoints.run_folders import (
    folder_of_run,
    is_detectron2_run,
    is_mmengine_run,
)
from eva_backbone.resample import (
    PosResampling,
    inflate_patch_embed,
    resample_bias_table,
    resample_clip_pos_embed,
    resample_patch_embed,
    resample_pos_embed,
    resample_rel_pos,
)
from eva_backbone.vit import VideoTransformer, VisionTransformer

logger = logging.getLogger(__name__)

_OTHER_SHAPE = "initialised from scratch, other shape in the file"
_OTHER_POOLING = "initialised from scratch, of the class token in the file and not of the mean"

Shape = tuple[int, ...]
_SIDE = 224  # pixels of a frame, for which all official video models are made
_OF_IMAGE = (TRUNK_KEY, "spm.stem.0.weight")  # convolutions of its channels; ViT-Adapter's
_OFFICIAL_PATCHES = (14, 16)


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


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Frames in the file (1 for a model of images), and the model's frames, rows and columns."""

    stored: int
    grid: tuple[int, int, int]


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
    target, report = model.state_dict(), LoadReport(source=file.name)
    file, prefixes = _find_prefixes(file, target, complete=complete)
    renamed = _rename(file.tensors, *prefixes, report)
    renamed = fuse_qkv_bias(split_qkv_bias(renamed, target), target)
    method = next(m.positions for m in model.modules() if isinstance(m, VisionTransformer))
    fit = partial(
        resample,
        clips=clips_of(model, file, prefixes[0]),
        method="bicubic" if method == "none" else method,
    )
    of_eva = method == "bicubic"  # only EVA-01 has files without layer scale
    optional = {name: why for name, why in OPTIONAL.items() if of_eva or "gamma" not in name}
    with _naming_recipe(None if isinstance(source, Weights) or not complete else source):
        state = _fit(
            renamed, target, prefixes, report, tuple(allow_skipped), tuple(reinitialise), fit
        )
        lacking = _explain_missing(target, state, prefixes, report, tuple(allow_missing), optional)
        lacking = lacking or [
            name
            for name, reason in report.missing.items()
            if target[name].is_meta or (complete and reason != COMPUTED)
        ]
        if lacking:
            raise _UnfitError(
                f"{file.name} lacks {len(lacking)} of the model's names: {list_names(lacking)}. "
                f"{_compare_forms(renamed, target, prefixes[1])}Build what the file belongs to, "
                "pass names as allow_missing (not with complete=True), or build the model on a "
                "real device"
            )
    report.loaded = list(state)
    _set_weights(model, target, state, renamed, report.missing)
    logger.info("%s", report)
    return report


def _find_prefixes(
    file: Weights, target: Mapping[str, Tensor], *, complete: bool
) -> tuple[Weights, tuple[str, str]]:
    """Find what is in front of the trunk's names in the file and in the model.

    In CLIP's official image towers that is put there as in files of both towers, whose head is a
    projection.
    """
    stored, prefix = find_trunk(file.tensors, name=file.name), find_trunk(target, name="the model")
    of_clip = file.name in {entry.name for entry in list_official_files("clip")}
    if not complete and stored == prefix == "" and of_clip:
        stored = "visual."
        file = replace(file, tensors={stored + name: v for name, v in file.tensors.items()})
    return file, (stored, prefix)


def _set_weights(
    model: nn.Module,
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    missing: Collection[str],
) -> None:
    """Put a state, some of it as `stored` in a file, into a model, whose `missing` weights stay."""
    for where, module in model.named_modules():
        if isinstance(module, VisionTransformer):  # that was built inside `no_init_weights`
            inside = f"{where}." if where else ""
            module.init_missing([n.removeprefix(inside) for n in missing if n.startswith(inside)])
    assign = any(value.is_meta for value in target.values())
    if assign:  # a copy: parameters must not lie in a file that may be written again
        of_file = {id(value) for value in stored.values()}
        state = {n: v.clone() if id(v) in of_file else v for n, v in state.items()}
    initial = {name: target[name] for name in missing}
    model.load_state_dict({**state, **initial}, strict=True, assign=assign)


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


class _UnfitError(ValueError):
    """Weights of another model."""


@contextlib.contextmanager
def _naming_recipe(source: str | os.PathLike[str] | None) -> Iterator[None]:
    """Say of weights of a run, which do not fit another recipe, that it has its own."""
    try:
        yield
    except _UnfitError as error:
        folder = None if source is None else folder_of_run(Path(source))
        if folder is None or not (is_detectron2_run(folder) or is_mmengine_run(folder)):
            raise
        raise ValueError(
            f"{folder} does not fit this recipe, and has its own: name the run alone, without "
            "settings of the model, to the task that it is of"
        ) from error


def _fit(
    renamed: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    prefixes: tuple[str, str],
    report: LoadReport,
    allow_skipped: tuple[str, ...],
    reinitialise: tuple[str, ...],
    fit: Callable[[str, Tensor, Shape], Tensor | None],
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
            fitted = fit(local, value, shape)
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
        raise _UnfitError(
            f"{report.source} does not fit the model. Names that the model does not have (may be "
            f"passed as allow_skipped): {list_names(unexpected) or 'none'}. Other shapes, in the "
            f"file -> in the model (heads may be passed as reinitialise): "
            f"{list_names(unfit) or 'none'}. {_compare_forms(renamed, target, prefixes[1])}"
            "Build the model that the file belongs to"
        )
    return state


def _compare_forms(renamed: Mapping[str, Tensor], target: Mapping[str, Tensor], prefix: str) -> str:
    """Say what kind of ViT file and model have, if they have two; "" otherwise."""
    forms = [
        describe_form(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        for names in (renamed, target)
    ]
    if forms[0] == forms[1]:
        return ""
    return f"They are ViTs of two kinds: the file has {forms[0]}, the model {forms[1]}. "


def _explain_missing(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    prefixes: tuple[str, str],
    report: LoadReport,
    allow_missing: tuple[str, ...],
    optional: Mapping[str, str],
) -> list[str]:
    """Note why the file may lack names of the model; return those without a reason."""
    prefix, unexplained = prefixes[1], []
    for name in (name for name in target if name not in state and name not in report.missing):
        if _matches(allow_missing, name):
            reason: str | None = "as asked"
        elif name.startswith(prefix):
            reason = _first_match(optional, name.removeprefix(prefix))
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


def clips_of(model: nn.Module, weights: Weights, prefix: str) -> ClipShape | None:
    """Describe clips of file and model; None for a model of images. See `stored_frames`."""
    vit = next((m for m in model.modules() if isinstance(m, VideoTransformer)), None)
    if vit is None:
        return None
    rows = 1 if vit.pos_embed is None else vit.pos_embed.shape[1]
    side = math.isqrt((rows - 1) // vit.frames)  # RADIO's are of a larger map
    return ClipShape(stored=stored_frames(weights, prefix), grid=(vit.frames, side, side))


def stored_frames(weights: Weights, prefix: str) -> int:
    """Find the number of frames that a file's positions are made for, 1 in a model of images.

    Where the file does not note it, 224 px are assumed, as in the official files.

    Args:
        weights: The file.
        prefix: Text in front of its ViT's names.

    Raises:
        ValueError: If the number is neither known nor official, or the positions are not that many
            square frames.
    """
    kernel = tuple(weights.tensors[prefix + TRUNK_KEY].shape)  # (C, 3, p, p) or (C, 3, 1, p, p)
    clips, patch, frames = len(kernel) == 5, kernel[-1], weights.frames
    if f"{prefix}pos_embed" not in weights.tensors and (frames or not clips):  # rotary ones alone
        return frames if frames and clips else 1
    positions = weights.tensors.get(f"{prefix}pos_embed", torch.empty(1, 1, 0)).shape[1] - 1
    if clips and frames is None and patch in _OFFICIAL_PATCHES:
        per_frame = (_SIDE // patch) ** 2
        frames = positions // per_frame if positions % per_frame == 0 else None
    frames = frames if clips else 1
    side = math.isqrt(positions // frames) if frames else 0
    if not frames or not side or frames * side**2 != positions or (clips and kernel[2] != 1):
        raise ValueError(
            f"{weights.name} has {positions} positions of patches and a patch kernel {kernel}, "
            f"which are not {frames or 'some number of'} square frames of EVA (tubelet size 1); "
            'metadata of a .safetensors file may note the number, config = {"model": {"frames": T}}'
        )
    return frames


def cast(value: Tensor, dtype: torch.dtype, which: str) -> Tensor:
    """Cast numbers to the model's type, unless that changes what they are.

    Args:
        value: The file's tensor.
        dtype: Type in the model.
        which: File and name, for messages.

    Raises:
        ValueError: If they are of another kind, or too large for the type.
    """
    if value.dtype == dtype:
        return value
    names = f"{str(value.dtype).removeprefix('torch.')} -> {str(dtype).removeprefix('torch.')}"
    same_kind = value.is_floating_point() == dtype.is_floating_point and not value.is_complex()
    largest, limit = 0.0, math.inf
    floats = same_kind and dtype.is_floating_point and value.numel()
    if floats and torch.finfo(dtype).max < torch.finfo(value.dtype).max:
        largest, limit = max(abs(b.item()) for b in value.aminmax()), torch.finfo(dtype).max
    if not same_kind or not largest <= limit:  # NaN, too, which resampling makes of infinity
        raise ValueError(
            f"{which} with values up to {largest:.3g} that the model's type cannot hold ({names}); "
            "build the model in float32, or convert the file"
        )
    return value.to(dtype)


def resample(
    local: str, value: Tensor, shape: Shape, clips: ClipShape | None, method: PosResampling
) -> Tensor | None:
    """Resample a tensor whose shape depends on the input's size.

    Args:
        local: Name below the ViT's prefix.
        value: The file's tensor.
        shape: Shape in the model.
        clips: Frames of file and model, if the model is one of clips.
        method: How the model resamples positions.

    Returns:
        The tensor in another shape, itself if it fits, None for one that cannot be resampled.
    """
    if local == "pos_embed" and clips is not None and value.shape[2:] == shape[2:]:
        frames, rows, columns = clips.grid
        if clips.stored == frames and value.shape[1] == 1 + frames * rows * columns:
            return value
        return resample_clip_pos_embed(value, clips.stored, clips.grid, method)
    if tuple(value.shape) == shape:
        return value
    if local == TRUNK_KEY and clips is not None and value.shape[:2] == shape[:2]:
        kernel = value if value.ndim == 4 else value.squeeze(2)  # (C, 3, p, p)
        return resample_patch_embed(kernel, shape[-1]).unsqueeze(2).clone()
    if local == "pos_embed" and value.ndim == len(shape) == 3 and value.shape[2] == shape[2]:
        side = round((shape[1] - 1) ** 0.5)
        return resample_pos_embed(value, (side, side), method)
    if local in _OF_IMAGE and value.ndim == len(shape) == 4 and len(value) == shape[0]:
        if value.shape[1] not in (3, shape[1]):
            return None
        return resample_patch_embed(inflate_patch_embed(value, shape[1]), shape[-1])
    if value.ndim == len(shape) == 2 and value.shape[1] == shape[1]:
        if re.search(r"\.rel_pos_[hw]$", local):
            return resample_rel_pos(value, shape[0], "vitdet")
        if local.endswith(".relative_position_bias_table") and min(len(value), shape[0]) > 3:
            source, side = (round(((rows - 3) ** 0.5 + 1) / 2) for rows in (len(value), shape[0]))
            return resample_bias_table(value, source, (side, side))
    return None
