"""What `tools/extract_features.py` computes by EVA-CLIP: one embedding of each picture or text."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_contrastive.model.open_clip_program import open_clip_weights
from eva_engine.commands.extraction import Extraction, Kind

if TYPE_CHECKING:  # the options alone need no torch
    import torch

    from eva_engine.extraction import Samples


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unit-length",
        action="store_true",
        default=None,
        help="scale embeddings to unit length, for cosines (default: as the towers give them)",
    )


def _check(options: argparse.Namespace) -> None:
    for name in ("image_size", "mean", "std"):
        if options.texts is not None and getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} has no use with --texts")


def _prepare(options: argparse.Namespace, device: "torch.device") -> Extraction:
    from eva_engine.extraction import Pictures, Texts

    try:
        from eva_contrastive.inference.features import ClipFeatures
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--kind embedding needs {error.name}: install the extra clip "
            "(pip install 'eva-toolkit[clip]')"
        ) from error
    clip = ClipFeatures.from_weights(
        options.weights,
        texts=options.texts is not None,
        image_size=options.image_size,
        mean=options.mean,
        std=options.std,
        batch_size=options.batch_size,
        device=str(device),
        precision=options.precision,
    )
    # the file of a folder of open_clip, which the tool names and hashes too
    options.weights = str(open_clip_weights(Path(options.weights)) or options.weights)
    settings = {
        "unit_length": bool(options.unit_length),
        "precision": str(clip.dtype).removeprefix("torch."),
    }
    if options.texts is not None:
        samples: Samples = Texts(options.texts, clip.tokens)
        compute: Any = clip.token_features
    else:
        samples, compute = Pictures(options.images, clip.transform), clip.images
        settings |= {
            "mean": clip.mean,
            "std": clip.std,
            "image_size": clip.image_size,
            "upright": True,
        }
    return Extraction(
        partial(compute, normalize=bool(options.unit_length)), samples, (clip.embed_dim,), settings
    )


EMBEDDINGS = Kind(
    names={"embedding": ("images", "texts")},
    add_options=_add_options,
    check=_check,
    prepare=_prepare,
)
