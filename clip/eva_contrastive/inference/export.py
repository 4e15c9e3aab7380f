"""Export of both towers with `torch.export` or as ONNX.

The folder has a program for each tower, `clip.json` with what a caller must know of pictures and
texts, and the tokenizer's vocabulary. Each program is compared with its tower before the folder
appears.

Shapes: B pictures or texts, S the side of a picture, L tokens of a text, D values of a feature.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eva_contrastive.inference.export_command import (
    FACTS,
    FEATURES,
    TOLERANCES,
    TOWERS,
    VOCABULARY,
)
from eva_data.files import replacing_folder, write_text
from eva_runs.exported import (
    ENDINGS,
    demand_close,
    differences,
    open_program,
    quiet,
    write_program,
)

if TYPE_CHECKING:
    from eva_contrastive.model.eva_clip import EvaClip


def export_towers(
    model: "EvaClip",
    folder: Path,
    *,
    form: str,
    towers: Sequence[str] = tuple(TOWERS),
    batch_size: int | None = None,
    normalize: bool = False,
    opset: int | None = None,
    preparation: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> dict[str, float]:
    """Write towers, read the files again and compare.

    Args:
        model: Model in evaluation mode; the programs get its type and device.
        folder: Folder; it appears, or replaces an earlier one, when it is complete.
        form: "torch-export" or "onnx".
        towers: Any of "image" and "text".
        batch_size: Pictures or texts of a batch, fixed in the file; None for any number.
        normalize: Scale the features to unit length.
        opset: Version of ONNX's operators; None for torch's choice.
        preparation: Facts on the pictures' pixels, for `clip.json`.
        tolerance: Largest difference, as a share of the largest value; None takes it from
            `TOLERANCES`.

    Returns:
        Tower -> largest difference between the file and the tower.

    Raises:
        ValueError: If a file differs by more; nothing is left then.
    """
    found: dict[str, float] = {}
    entries: dict[str, dict[str, Any]] = {}
    dtype = str(model.visual.pos_embed.dtype).removeprefix("torch.")
    if tolerance is None:
        tolerance = TOLERANCES[dtype]
    facts = _facts(model, preparation or {}, normalize=normalize, dtype=dtype)
    with torch.no_grad(), quiet(), replacing_folder(folder) as place:
        for tower in towers:
            file = place / f"{tower}{ENDINGS[form]}"
            inputs = _inputs(model, tower, 2 if batch_size is None else batch_size)
            names = {"file": file.name, "input": TOWERS[tower], "output": FEATURES}
            entries[tower] = names | {"batch": batch_size or "any"}
            module = _Tower(model, tower, normalize=normalize)
            # torch.export takes a dimension of one example for a fixed one
            shapes = ({0: torch.export.Dim("batch")},) if batch_size is None else None
            write_program(
                torch.export.export(module, (inputs,), dynamic_shapes=shapes),
                file,
                inputs=[TOWERS[tower]],
                outputs=[FEATURES],
                facts=facts | entries[tower],
                opset=opset,
            )
            sizes = (1, 2, 5) if batch_size is None else (batch_size,)
            found[tower] = _differ(module, open_program(file), sizes)
            demand_close({tower: found[tower]}, tolerance)
        write_text(place / FACTS, json.dumps({"towers": entries} | facts, indent=2) + "\n")
        if "text" in towers:
            shutil.copyfile(_vocabulary(), place / VOCABULARY)
    return found


class _Tower(nn.Module):
    """A tower whose output has a name.

    Args:
        model: Both towers.
        name: "image" or "text".
        normalize: Scale the features to unit length.
    """

    def __init__(self, model: "EvaClip", name: str, *, normalize: bool) -> None:
        super().__init__()
        self.model, self.name, self.normalize = model, name, normalize
        self.eval()

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Encode (B, 3, S, S) or (B, L); returns (B, D)."""
        encode: Callable[..., Tensor] = getattr(self.model, f"encode_{self.name}")
        return {FEATURES: encode(inputs, normalize=self.normalize)}


def _inputs(model: "EvaClip", tower: str, batch_size: int) -> Tensor:
    """Make pictures or texts: random ones, of several lengths."""
    generator = torch.Generator().manual_seed(batch_size)
    position = model.visual.pos_embed
    if tower == "image":
        shape = (batch_size, 3, model.image_size, model.image_size)
        return torch.randn(shape, generator=generator).to(position)
    from eva_contrastive.model.tokens import tokenize

    tokens = tokenize(["a dog " * (index + 1) for index in range(batch_size)], model.context_length)
    return tokens.to(position.device)


def _differ(module: _Tower, run: Callable[..., dict[str, Tensor]], sizes: Sequence[int]) -> float:
    """Compare for several sizes of a batch; return the largest share of the largest value."""
    shares = []
    for size in sizes:
        inputs = _inputs(module.model, module.name, size)
        expected = module(inputs)
        found = differences(expected, run({TOWERS[module.name]: inputs}))[FEATURES]
        shares.append(found / max(expected[FEATURES].abs().max().item(), 1e-12))
    return max(shares, key=lambda share: (math.isnan(share), share))


def _facts(
    model: "EvaClip", preparation: Mapping[str, Any], *, normalize: bool, dtype: str
) -> dict[str, Any]:
    """Say what a caller must know to prepare the input, and to make logits of the output."""
    from eva_contrastive.model.tokens import tokenize

    start, end = (token for token in tokenize("", 3)[0, :2].tolist())
    bias = model.text.logit_bias
    return {
        "pictures": {
            "size": model.image_size,
            "resize": "shorter side, bicubic",
            "crop": "centre",
            "channels": "RGB, in [0, 1]",
            **preparation,
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


def _vocabulary() -> str:
    from open_clip.tokenizer import default_bpe

    path: str = default_bpe()
    return path
