"""Export of both towers with `torch.export` or as ONNX, and mixtures of two sets of weights.

An export has a program for each tower, `clip.json` with the preparation of images and texts, and
the tokenizer's vocabulary. Each program is compared with its tower before the folder appears.

Shapes: B images or texts, S the side of an image, L tokens of a text, D values of a feature.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import default_bpe
from torch import Tensor

from eva_contrastive.config import EXPORT_TOLERANCES, EXPORTED_FILES
from eva_contrastive.model.eva_clip import EvaClip, tokenize
from eva_contrastive.model.loading import load_eva_clip, read_clip_weights
from eva_contrastive.model.open_clip_files import find_preparation
from eva_data.saving import replace_folder, write_text
from eva_engine.checkpoints.files import read_config, save_weights
from eva_engine.distributed import choose_device
from eva_runs.commands import echo
from eva_runs.exported import CallableModule, normal_batches, write_compared
from eva_runs.options import EXPORT_SUFFIXES
from eva_runs.precision import choose_dtype, to_precision

logger = logging.getLogger(__name__)

INPUTS = {"image": "images", "text": "tokens"}  # of each tower
FEATURES = "features"
FACTS, VOCABULARY = EXPORTED_FILES


def export(options: argparse.Namespace) -> None:
    """Write the towers of the weights that the options of `eva clip export` name."""
    noted = find_preparation(
        options.weights, image_size=options.image_size, mean=options.mean, std=options.std
    )
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    model = load_eva_clip(options.weights, image_size=noted.image_size, dtype=dtype)
    differences = export_towers(
        to_precision(model.requires_grad_(False), options.precision, device),
        options.output,
        form=options.form,
        towers=options.towers,
        normalize=options.normalize,
        pixels={"mean": list(noted.mean), "std": list(noted.std)},
        tolerance=options.tolerance,
    )
    if options.form == "onnx" and options.precision == "fp16" and "text" in differences:
        logger.warning(
            "onnxruntime 1.32 crashes on a CPU with a text tower in float16: pass it session "
            "options with graph_optimization_level ORT_ENABLE_EXTENDED, or export in float32"
        )
    for tower, share in differences.items():
        echo(f"{tower}: differs from the model by at most {share:.2g} of the largest value")
    size = sum(file.stat().st_size for file in options.output.iterdir()) / 2**20
    echo(f"output   {options.output} ({size:.1f} MiB)")


def export_towers(
    model: EvaClip,
    folder: Path,
    *,
    form: str,
    towers: Sequence[str] = tuple(INPUTS),
    normalize: bool = False,
    pixels: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> dict[str, float]:
    """Write towers, read the files again and compare.

    Args:
        model: Model in evaluation mode; the programs get its type and device.
        folder: Folder; it appears, or replaces an earlier one, when it is complete.
        form: "torch-export" or "onnx".
        towers: Any of "image" and "text".
        normalize: Scale the features to unit length.
        pixels: Facts on the images' pixels, for `clip.json`.
        tolerance: Largest difference, as a share of the largest value; None for the type's.

    Returns:
        Tower -> largest difference between the file and the tower.

    Raises:
        ValueError: If a file differs by more; nothing is left then.
    """
    differences: dict[str, float] = {}
    entries: dict[str, dict[str, Any]] = {}
    facts = _facts(model, pixels or {}, normalize=normalize)
    limit = EXPORT_TOLERANCES[facts["features"]["dtype"]] if tolerance is None else tolerance
    with replace_folder(folder) as temporary:
        for tower in towers:
            file = temporary / f"{tower}{EXPORT_SUFFIXES[form]}"
            names = {"file": file.name, "input": INPUTS[tower], "output": FEATURES}
            entries[tower] = names | {"batch": "any"}
            encode = partial(getattr(model, f"encode_{tower}"), normalize=normalize)
            draw = normal_batches(model, 3, model.image_size, model.image_size)
            differences[tower] = write_compared(
                CallableModule(model, encode, FEATURES).eval(),
                file,
                name=INPUTS[tower],
                inputs=draw if tower == "image" else partial(_texts, model),
                facts=facts | entries[tower],
                tolerance=limit,
            )[FEATURES]
        write_text(temporary / FACTS, json.dumps({"towers": entries} | facts, indent=2) + "\n")
        if "text" in towers:
            shutil.copyfile(default_bpe(), temporary / VOCABULARY)
    return differences


def _texts(model: EvaClip, batch_size: int) -> Tensor:
    """Make texts of several lengths."""
    tokens = tokenize(["a dog " * (index + 1) for index in range(batch_size)], model.context_length)
    return tokens.to(model.visual.patch_embed.proj.weight.device)


def _facts(model: EvaClip, pixels: Mapping[str, Any], *, normalize: bool) -> dict[str, Any]:
    """Describe the preparation of the input, and how logits are made of the output."""
    dtype = str(model.visual.patch_embed.proj.weight.dtype).removeprefix("torch.")
    start, end = tokenize("", 3)[0, :2].tolist()
    bias = model.text.logit_bias
    return {
        "images": {
            "size": model.image_size,
            "resize": "shorter side, bicubic",
            "crop": "centre",
            "channels": "RGB, in [0, 1]",
            **pixels,
        },
        "texts": {
            "tokenizer": "byte-pair encoding of OpenAI's CLIP",
            "vocabulary": VOCABULARY,
            "clean": "ftfy, HTML entities, white space, lower case",
            "context_length": model.context_length,
            "start_token": start,
            "end_token": end,
            "padding": 0,
        },
        "features": {"values": model.embed_dim, "dtype": dtype, "unit_length": normalize},
        "logits": {
            "scale": model.text.logit_scale.exp().item(),
            "bias": None if bias is None else bias.item(),
        },
    }


def interpolate(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Compute `(1 - share) * start + share * end` of each weight, in float32.

    Raises:
        ValueError: If names or shapes differ, naming the first that does.
    """
    for name in (*start, *end):
        first, last = (
            tuple(weights[name].shape) if name in weights else None for weights in (start, end)
        )
        if first != last:
            raise ValueError(
                f"start and end are of different models: {name} has shape {first} in the start "
                f"and {last} in the end"
            )
    return {name: torch.lerp(start[name].float(), end[name].float(), share) for name in end}


def write_mixtures(options: argparse.Namespace, sources: Mapping[str, Path]) -> None:
    """Write a file for each share of `eva clip interpolate`, with the notes of the end."""
    start, end = (read_clip_weights(sources[name]).tensors for name in ("start", "end"))
    notes = read_config(sources["end"])
    for share, file in zip(options.share, options.files, strict=True):
        save_weights(interpolate(start, end, share), file, notes)
        echo(f"{file}: {share:g} of {sources['end']}, {1 - share:g} of {sources['start']}")
