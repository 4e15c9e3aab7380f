"""The report of a pre-training: images, their masks, and the agreement with the teacher.

Shapes: B images, H x W grid of patches, p pixels of a patch.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_data.files import display_path
from eva_report.content import Example, Gallery, NextStep, TitledImage
from eva_report.drawing import enlarge
from eva_report.first_batch import image_tiles
from eva_report.sheets import Tile
from eva_runs.commands import command_to_run

SHOWN = 6  # validation images
_SIDE = 256  # pixels of a small image, at least
_CLASSIFIERS = {  # size of the student -> a recipe that begins from it
    "eva_debug": "eva_debug_digits",
    "eva_g_patch14": "eva_g_patch14_in21k_224px",
    "eva_l_patch14": "eva_l_patch14_in21k_224px",
}
_HIDDEN, _SHOWN_TO_STUDENT = 128, 235  # greys of a masked patch, and of one without a prediction
MEANINGS = {
    "cosine": "Mean cosine between the predicted and the teacher's features of hidden patches (of "
    "all, in distillation); one prediction for all patches is well above 0.",
    "accuracy": "Share of the hidden patches whose code was predicted; 1 is all of them.",
    "code_usage": "Share of all codes that occur among the hidden patches.",
    "loss": "Mean of what the training minimises, on the validation images; lower is better.",
}


def gallery(
    names: Sequence[str], images: Tensor, mask: Tensor | None, agreement: Tensor, *, measure: str
) -> Gallery:
    """Show each image, what the student saw of it, and its agreement with the teacher.

    Args:
        names: Name of each image.
        images: (B, 3, H * p, W * p), values in [0, 1].
        mask: (B, H, W) bool, True where a patch was hidden; None if none was.
        agreement: (B, H, W), NaN where nothing was predicted.
        measure: What the agreement is: "cosine".
    """
    finite = agreement[agreement.isfinite()]
    low = np.floor(float(finite.min()) * 10) / 10
    high = max(np.ceil(float(finite.max()) * 10) / 10, low + 0.1)
    colors = colormaps["viridis"]
    pixels = (images.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()  # (B, H * p, W * p, 3)
    examples = []
    for index, (name, image) in enumerate(zip(names, pixels, strict=True)):
        values = agreement[index].numpy()  # (H, W)
        is_finite = np.isfinite(values)[..., None]
        shades = colors((np.nan_to_num(values, nan=low) - low) / (high - low))[..., :3] * 255
        cells = np.where(is_finite, shades, _SHOWN_TO_STUDENT).astype(np.uint8)
        shown = [TitledImage(title="image", image=_enlarged(image))]
        if mask is not None:
            size = image.shape[0] // values.shape[0]
            hidden = np.kron(mask[index].numpy(), np.ones((size, size), bool))
            masked = np.where(hidden[..., None], _HIDDEN, image).astype(np.uint8)
            shown.append(TitledImage(title="what the student sees", image=_enlarged(masked)))
        shown.append(TitledImage(title=measure, image=_enlarged(cells)))
        caption = f"{Path(name).name}: mean {measure} {np.nanmean(values):.2f}"
        examples.append(Example(caption=caption, images=shown))
    return Gallery(
        title="Agreement of student and teacher",
        examples=examples,
        text=f"{measure.capitalize()} of each predicted patch, from {low:.1f} (dark blue) to "
        f"{high:.1f} (yellow). Light grey patches are visible to the student and not predicted.",
    )


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(enlarge(pixels, max(1, -(-_SIDE // max(pixels.shape[:2])))))


def first_samples(
    batch: Mapping[str, Tensor], *, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Tile]:
    """Show the first images (B, 3, H * p, W * p) of a batch, without what is hidden."""
    images = batch["images"]
    if "mask" in batch:
        hidden = F.interpolate(batch["mask"][:, None].float(), images.shape[-2:]) > 0
        images = images.masked_fill(hidden, 0.0)  # the mean color
    return image_tiles(images, [""] * len(images), mean, std)


def next_steps(variant: str, folder: Path) -> list[NextStep]:
    """Name what one does with the pre-trained weights of a size in the folder of a run."""
    weights = ("--model.init-checkpoint", folder, "--output", f"{folder}_classifier")
    if variant in _CLASSIFIERS:
        program = "classification train", "classification/train.py"
        fine_tune = command_to_run(*program, _CLASSIFIERS[variant], *weights)
    else:  # a student, of own images
        fine_tune = _command("eva", "train", "my/labelled", "--model.variant", variant, *weights)
    export = _command("eva", "convert", folder, "--to", "official", "--output", f"{folder}.pt")
    return [
        NextStep(
            text="Fine-tune a classifier; all projects take this folder as weights.",
            command=fine_tune,
        ),
        NextStep(text="Export the weights in the official form.", command=export),
    ]


def _command(*words: str | Path) -> str:
    return shlex.join(map(display_path, words))
