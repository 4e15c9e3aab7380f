"""What the report of a pre-training shows: pictures, their masks, where the teacher is met.

Shapes: B images, N patches of an H x W grid, K masked patches of the batch, D channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from eva_pretrain.masked_image_modeling import MaskedFeatures, Objective, select
from eva_pretrain.other_objectives import FeatureDistillation, MaskedTokens
from eva_pretrain.tokens.tokenizer import Codebook
from eva_report.content import Curve, Curves, Example, Gallery, Picture, Section, Step
from eva_runs.commands import command_to_run

PICTURES = 6
_SIDE = 256  # pixels of a small picture, at least
_CLASSIFIERS = {  # size of the student -> a recipe that begins from it
    "eva_debug": "eva_debug_digits",
    "eva_g_patch14": "eva_g_patch14_in21k_224px",
}
_DEMO = "output/datasets/digit_folder"  # what the smallest of them learns from
_HIDDEN = 128  # grey of a masked patch
_COSINE = "Mean cosine between the prediction and the teacher's features of a patch that the "
MEANINGS = {
    "cosine": _COSINE + "student does not see (or of all, in distillation): 1 is the teacher "
    "itself; a prediction that is the same for every patch is well above 0.",
    "accuracy": "Share of the hidden patches whose code was predicted; 1 is all of them.",
    "code_usage": "Share of all codes that occur among the hidden patches.",
    "loss": "Mean of what the training minimises, on the validation pictures; lower is better.",
}


@dataclass(frozen=True)
class Seen:
    """Validation pictures, and how well their patches were predicted.

    Attributes:
        names: Name of each picture.
        images: (B, 3, H * p, W * p), normalised.
        mask: (B, H, W) bool, True where a patch was hidden; None if none was.
        agreement: (B, H, W), NaN where nothing was predicted.
        measure: What the agreement is: "cosine".
    """

    names: Sequence[str]
    images: Tensor
    mask: Tensor | None
    agreement: Tensor
    measure: str


@torch.no_grad()
def look(
    model: nn.Module,
    objective: Objective,
    batch: Mapping[str, Any],
    features: Tensor,
    *,
    grid: tuple[int, int],
    names: Sequence[str],
) -> Seen | None:
    """Compare predictions with the teacher, patch by patch.

    Args:
        model: The student, in evaluation mode.
        objective: What is learned.
        batch: A batch of `collate` on the device.
        features: (B, N, D) of the teacher.
        grid: (H, W).
        names: Name of each picture.

    Returns:
        What was seen; None for an objective that is not known here.
    """
    images, mask, positions = batch["images"], batch.get("mask"), batch.get("positions")
    seen = images.to(next(model.parameters()).dtype)
    if isinstance(objective, FeatureDistillation):
        mask, measure = None, "cosine"
        values = F.cosine_similarity(model(seen).float(), features.flatten(0, 1).float(), dim=-1)
    elif isinstance(objective, MaskedFeatures | MaskedTokens):
        assert mask is not None
        assert positions is not None
        predictions, targets = (
            model(seen, mask, positions).float(),
            select(features, mask, positions),
        )
        if isinstance(objective, MaskedFeatures):
            measure = "cosine"
            values = F.cosine_similarity(predictions, targets.float(), dim=-1)
        else:
            measure = "probability of the teacher's code"
            codes = objective.tokenizer.encode(targets[None])[0]
            values = predictions.softmax(1).gather(1, codes[:, None])[:, 0]
    else:
        return None
    agreement = torch.full((len(images) * grid[0] * grid[1],), float("nan"))
    places = slice(None) if mask is None else mask.flatten().cpu()
    agreement[places] = values.float().cpu()
    shown = None if mask is None else mask.cpu().reshape(-1, *grid)
    return Seen(names, images.float().cpu(), shown, agreement.reshape(-1, *grid), measure)


def gallery(seen: Seen, *, mean: Sequence[float], std: Sequence[float]) -> Gallery:
    """Show each picture, what the student saw of it, and where it met the teacher.

    Args:
        seen: Result of `look`.
        mean: Mean by which the pictures are normalised.
        std: Their standard deviation.
    """
    from matplotlib import colormaps

    finite = seen.agreement[seen.agreement.isfinite()]
    low = np.floor(float(finite.min()) * 10) / 10
    high = max(np.ceil(float(finite.max()) * 10) / 10, low + 0.1)
    colors = colormaps["viridis"]
    scale = Tensor(mean)[:, None, None], Tensor(std)[:, None, None]
    examples = []
    for index, name in enumerate(seen.names):
        pixels = (seen.images[index] * scale[1] + scale[0]).clamp(0, 1) * 255
        image = pixels.byte().permute(1, 2, 0).numpy()  # (S, S, 3)
        values = seen.agreement[index].numpy()  # (H, W)
        known = np.isfinite(values)
        shades = colors((np.nan_to_num(values, nan=low) - low) / (high - low))[..., :3] * 255
        cells = np.where(known[..., None], shades, 235).astype(np.uint8)
        pictures = [Picture(title="picture", image=_enlarged(image))]
        if seen.mask is not None:
            hidden = _stretched(seen.mask[index].numpy(), image.shape[0])
            masked = np.where(hidden[..., None], _HIDDEN, image).astype(np.uint8)
            pictures.append(Picture(title="what the student sees", image=_enlarged(masked)))
        pictures.append(Picture(title=seen.measure, image=_with_scale(_enlarged(cells), colors)))
        caption = f"{Path(name).name}: mean {seen.measure} {np.nanmean(values):.2f}"
        examples.append(Example(caption=caption, pictures=pictures))
    return Gallery(
        title="Where the student meets the teacher",
        examples=examples,
        text="By the weights of the last evaluation, averaged where the run keeps an average. "
        f"{seen.measure.capitalize()} of each predicted patch: the bar beside it goes from "
        f"{low:.1f} (dark blue, below) to {high:.1f} (yellow, above); light grey patches were "
        "shown to the student and are not predicted.",
    )


def _stretched(cells: NDArray[Any], side: int) -> NDArray[Any]:
    factor = side // cells.shape[0]
    stretched: NDArray[Any] = cells.repeat(factor, axis=0).repeat(factor, axis=1)
    return stretched


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    height, width = pixels.shape[:2]
    factor = max(1, -(-_SIDE // max(height, width)))
    return Image.fromarray(pixels).resize(
        (width * factor, height * factor), Image.Resampling.NEAREST
    )


def _with_scale(image: Image.Image, colors: Any) -> Image.Image:
    """Put a bar of the colours beside a map, the highest value above."""
    bar = max(12, image.width // 16)
    sheet = Image.new("RGB", (image.width + bar * 3 // 2, image.height), "white")
    sheet.paste(image, (0, 0))
    steps = np.linspace(1, 0, image.height)[:, None].repeat(bar, axis=1)
    shades = (colors(steps)[..., :3] * 255).astype(np.uint8)
    sheet.paste(Image.fromarray(shades), (image.width + bar // 2, 0))
    return sheet


def use_of_codes(codebook: Codebook) -> list[Section]:
    """Show how evenly the codes of a tokenizer are used.

    Args:
        codebook: The trained one.

    Returns:
        A curve over the codes, the most used first.
    """
    shares = codebook.usage.float().cpu().sort(descending=True).values
    even = 1 / len(shares)
    points = [(number + 1.0, float(share) / even) for number, share in enumerate(shares)]
    used = int((shares > 0.1 * even).sum())
    return [
        Curves(
            title="Use of the codes",
            x_label="code, the most used first",
            y_label="share, of an even one",
            curves=[Curve(name="share", points=points)],
            text=f"{used:,} of {len(shares):,} codes have more than a tenth of an even share; "
            "1 everywhere would be even.",
        )
    ]


def next_steps(variant: str, folder: Path) -> list[Step]:
    """Name what one does with pre-trained weights.

    Args:
        variant: Size of the student.
        folder: Folder of the run.
    """
    recipe = _CLASSIFIERS.get(variant, "eva_l_patch14_in21k_224px")
    fine_tune = command_to_run(
        "classification train", "classification/train.py", recipe,
        "--model.init-checkpoint", folder, "--run.output", f"{folder}_classifier",
    )  # fmt: skip
    if variant == "eva_debug" and not Path(_DEMO).is_dir():
        demo = command_to_run(
            "data make-demo", "tools/make_demo_data.py", "--output", _DEMO, "--formats", "folder"
        )
        fine_tune = f"{demo} && {fine_tune}"
    export = command_to_run(
        "convert", "tools/convert_checkpoint.py", folder, "--to", "official",
        "--output", f"{folder}.pt",
    )  # fmt: skip
    return [
        Step(text="Fine-tune a classifier; all projects take this folder as weights.",
             command=fine_tune),
        Step(text="Export the weights in the official form.", command=export),
    ]  # fmt: skip
