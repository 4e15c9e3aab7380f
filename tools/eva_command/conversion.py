"""The conversion of a checkpoint: read, rename, resample, cast, write."""

import argparse
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints._key_maps import TRUNK_KEY
from eva_backbone.checkpoints.adapters import find_base, merge, read_adapter_config
from eva_backbone.checkpoints.convert import FORMATS, find_trunk, resampled
from eva_backbone.checkpoints.families import find_variant, to_eva_names
from eva_backbone.checkpoints.from_weights import describe, load_vit
from eva_backbone.checkpoints.loading import stored_frames
from eva_backbone.checkpoints.reading import Weights, read_safetensors, read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import ADAPTER_WEIGHTS, weights_of_run
from eva_command import timm_folder, transformers_folder
from eva_contrastive.model import open_clip_form
from eva_contrastive.model.open_clip_files import open_clip_weights
from eva_data.saving import open_atomic, replace_folder
from eva_engine.checkpoints.files import read_config, save_weights
from eva_mmdetection.model.detectron2_names import official_names, to_mmdet
from eva_runs.commands import echo

_FORMS = {
    **FORMATS,
    "mmdet": to_mmdet,
    "timm": resampled,  # which takes EVA-L's one bias of queries, keys and values as it is
    "transformers": resampled,
    "open-clip": FORMATS["official"],
}
_WRITERS = {
    "open-clip": open_clip_form.write_folder,
    "timm": timm_folder.write_folder,
    "transformers": transformers_folder.write_folder,
}
_LOADED_BY = {
    "open-clip": "open_clip.create_model_and_transforms('local-dir:{}')",
    "timm": "timm.create_model('local-dir:{}', pretrained=True)",
    "transformers": "transformers.AutoModel.from_pretrained('{}')",
}
_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def run(args: argparse.Namespace) -> None:
    """Convert a checkpoint or merge adapters, as the options of `eva convert` say."""
    echo(merge_adapters(args) if args.merge_lora else _convert(args, folder=args.to in _WRITERS))


def _convert(args: argparse.Namespace, *, folder: bool) -> str:
    """Convert a checkpoint to a file, or a folder for another program; return the report."""
    source = find_source(args.source, ema=args.ema)
    read = Weights.read_as_stored(source)
    weights, of_eva = _official_names(read.tensors, source, to=args.to)
    renamed = len(weights.keys() - read.tensors.keys())
    lines = [f"gave official names to {renamed} tensors of another program"] if renamed else []
    form = _FORMS[args.to] if of_eva or args.to != "official" else resampled
    weights, changes = form(weights, patch_size=args.patch_size)
    lines += changes
    if args.dtype:
        weights = _cast(weights, _DTYPES[args.dtype])
    if folder:
        with replace_folder(args.output) as part:
            lines += _WRITERS[args.to](weights, part, source)
        lines.append(f"load with {_LOADED_BY[args.to].format(args.output)}")
    else:
        as_before = args.to == "official" and args.patch_size is None
        notes = read_config(source) if as_before else None  # classes, mean and std, crop
        _write(weights, args.output, notes, frames=read.frames)
        if notes and args.output.suffix != ".safetensors":
            lines.append("what the run noted (classes, pixels) is kept in .safetensors alone")
    if args.to.startswith("detectron2") and args.output.suffix == ".safetensors":
        lines.append("detectron2's own checkpointer reads .pth, not .safetensors")
    files = args.output.iterdir() if folder else [args.output]
    size = sum(file.stat().st_size for file in files) / 1e6
    head = f"{source.name} -> {args.output}: {len(weights)} tensors, {size:.1f} MB"
    return "\n  ".join([head, *(lines or ["nothing to change"])])


def _official_names(
    stored: Mapping[str, Tensor], source: Path, *, to: str
) -> tuple[dict[str, Tensor], bool]:
    """Give the tensors of a checkpoint official names; say whether its ViT is EVA-01's."""
    weights, of_eva = _own_names(stored)
    if of_eva or to == "open-clip":
        weights = open_clip_form.to_official(stored)
    weights = timm_folder.official_names(official_names(weights))
    if _of_other_program(source.parent) == source:
        describe(Weights(f"{source.parent.name}/{source.name}", weights))  # refuses other models
    return weights, of_eva


def _cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast weights; refuse a type in whose range some are infinite."""
    cast = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    for name, value in cast.items():
        if value.isinf().sum() > weights[name].isinf().sum():
            raise ValueError(f"{name} has values beyond {dtype}'s range; choose --dtype fp32")
    return cast


def _own_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Give a plain ViT of another family the names of this toolkit; say whether it is EVA-01's.

    Under rotary positions the bias of keys counts, which the form of EVA-01 drops.
    """
    renamed = to_eva_names(weights)
    keys = [key for key in renamed if f".{key}".endswith(f".{TRUNK_KEY}")]
    if len(keys) != 1:
        return dict(weights), True
    stem = keys[0].removesuffix(TRUNK_KEY)
    own = {k.removeprefix(stem): v for k, v in renamed.items() if k.startswith(stem)}
    return renamed, find_variant(own) is None


def merge_adapters(args: argparse.Namespace) -> str:
    """Write adapters merged with their base; return a report, with the difference of outputs."""
    source = find_source(args.source, ema=args.ema)
    if source.name != ADAPTER_WEIGHTS:
        raise ValueError(f"{args.source} has no adapters: {source} is complete")
    config, factors = read_adapter_config(source.parent), read_safetensors(source)
    base = to_eva_names(read_weights(find_base(config, source.parent)))
    merged = Weights.read(source)
    apart = merge({**config, "lora_alpha": 0.0}, base, factors, source)
    trunk = describe(merged)
    # adapters are on linear layers, for which any windows do where the weights show none
    is_open = trunk.of_detector and "window_size" not in trunk.arguments
    windows: dict[str, Any] = {"window_size": 0} if is_open else {}
    vit = load_vit(replace(merged, tensors=apart), **windows)
    scale = config["lora_alpha"] / config["r"]
    for name in (name for name in factors if name.endswith(".lora_A.weight")):
        down, up = factors[name], factors[name.replace("lora_A", "lora_B")]
        layer = vit.get_submodule(name[name.index("blocks.") :].partition(".lora_A")[0])
        layer.register_forward_hook(
            lambda _, x, out, up=up, down=down: out + scale * (x[0] @ down.T @ up.T)
        )
    image = torch.rand(1, 3, vit.img_size, vit.img_size)
    with torch.no_grad():
        expected, actual = vit(image), load_vit(merged, **windows)(image)
    difference, largest = (actual - expected).abs().max(), expected.abs().max()
    _write(merged.tensors, args.output, read_config(source), frames=merged.frames)
    return (
        f"{source} -> {args.output}: {len(merged.tensors)} tensors, with adapters of rank "
        f"{config['r']}\n  outputs on one image differ by at most {difference:.2g} of {largest:.3g}"
    )


def find_source(source: str, *, ema: bool) -> Path:
    """Find the weights of a file, a name, a run or a folder of another program."""
    folder = Path(source.removeprefix("local-dir:"))
    weights = _of_other_program(folder)
    if folder.is_dir() and weights is None:
        # resolve_source knows folders of transformers, too
        return weights_of_run(folder, ema=True) if ema else resolve_source(folder.absolute())
    if ema:
        raise ValueError(f"--ema is for the folder of a run, which {source} is not")
    return weights or resolve_source(source)


def _of_other_program(folder: Path) -> Path | None:
    return open_clip_weights(folder) or timm_folder.timm_weights(folder)


def _write(
    weights: Mapping[str, Tensor],
    file: Path,
    config: Mapping[str, Any] | None = None,
    *,
    frames: int | None,
) -> None:
    """Write weights; a .pth cannot note `frames`, which must show in the shapes."""
    if file.suffix == ".safetensors":
        save_weights(dict(weights), file, config)
        return
    if frames:
        with contextlib.suppress(ValueError):
            shown = stored_frames(Weights(file.name, weights), find_trunk(weights, name=file.name))
            frames = 0 if shown == frames else frames
        if frames:
            raise ValueError(f"--output {file}: only .safetensors can note {frames} frames")
    with open_atomic(file) as stream:
        torch.save({"model": dict(weights)}, stream)
