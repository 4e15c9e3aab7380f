"""What `tools/extract_features.py` computes by the ViT of any weights."""

import argparse
from typing import TYPE_CHECKING

from eva_classification.model_options import add_extractor, build_extractor
from eva_engine.commands.extraction import Extraction, Kind

if TYPE_CHECKING:  # the options alone need no torch
    import torch

    from eva_classification.features import FeatureExtractor


def _check(options: argparse.Namespace) -> None:
    if options.kind == "patches" and options.pooling:
        raise ValueError("--pooling has no use with --kind patches")


def _prepare(options: argparse.Namespace, device: "torch.device") -> Extraction:
    from eva_engine.extraction import Pictures

    extractor = build_extractor(options, device)
    pooled = options.kind == "pooled"
    return Extraction(
        extractor if pooled else extractor.patches,
        Pictures(options.images, extractor.transform),
        _shape(extractor, pooled=pooled),
        {
            "mean": extractor.mean,
            "std": extractor.std,
            "upright": True,  # by EXIF; earlier versions left pictures as they are stored
            "vit": [options.num_heads, options.window_size, options.global_blocks],
            "pooling": extractor.pooling if pooled else None,
            "image_size": extractor.image_size,
            "precision": str(next(extractor.parameters()).dtype).removeprefix("torch."),
        },
    )


def _shape(extractor: "FeatureExtractor", *, pooled: bool) -> tuple[int, ...]:
    side = extractor.image_size // extractor.vit.patch_size
    width = extractor.vit.embed_dim
    return (width,) if pooled else (width, side, side)


VIT_FEATURES = Kind(
    names={"pooled": ("images",), "patches": ("images",)},
    add_options=add_extractor,
    check=_check,
    prepare=_prepare,
)
