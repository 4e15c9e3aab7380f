"""Export of both towers with `torch.export` or as ONNX.

The folder has a program for each tower, `clip.json` with what a caller must know of pictures and
texts, and the tokenizer's vocabulary. Each program is compared with its tower before the folder
appears.

Shapes: B pictures or texts, S the side of a picture, L tokens of a text, D values of a feature.
"""

import argparse
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_data.files import write_text
from eva_data.options import integer, number
from eva_data.outputs.exported import (
    DATA,
    ENDINGS,
    demand_close,
    differences,
    open_program,
    quiet,
    require_form,
    write_program,
)
from eva_data.outputs.folders import replacing_folder, require_replaceable
from eva_engine.commands.options import add_weights, choose_device, new_parser

if TYPE_CHECKING:  # imported where it is used, so that --help and mistakes answer at once
    from eva_contrastive.model.eva_clip import EvaClip

logger = logging.getLogger(__name__)

TOWERS = {"image": "images", "text": "tokens"}  # name -> that of its input
FACTS, VOCABULARY = "clip.json", "bpe_simple_vocab_16e6.txt.gz"
FEATURES = "features"
# Largest difference, as a share of the largest value: between two programs in half precision the
# order of summation alone makes up for much of it.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
_OPSETS = (18, 25)  # what torch.onnx writes
_EXAMPLE = """
Example:

    python clip/export.py --weights eva_clip_psz14.pt --format onnx --output eva_clip_onnx

OUTPUT receives image.onnx and text.onnx (or .pt2), clip.json and the tokenizer's vocabulary.
"""


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


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "export.py",
        "Write the towers of an EVA-CLIP (normalised pictures or tokens in, features out) for "
        "programs without this toolkit. Each file is compared with its tower before it is kept.",
        epilog=_EXAMPLE,
    )
    add_weights(parser, kinds="official name, or file, of a complete EVA-CLIP")
    add = parser.add_argument
    add("--format", required=True, choices=ENDINGS, dest="form")
    add("--output", required=True, type=Path, help="folder")
    add("--towers", nargs="+", choices=TOWERS, default=list(TOWERS), help="(default: both)")
    add("--batch-size", type=_batch_size, help='fixed, or "any" (default: any)')
    add("--normalize", action="store_true", help="features of unit length")
    add("--dtype", default="float32", choices=TOLERANCES)
    add("--opset", type=integer(*_OPSETS), help="of ONNX's operators (default: torch's choice)")
    add("--device", default="cpu", help="where a torch.export program will run (default: cpu)")
    add("--tolerance", type=number(0), help="largest difference, as a share of the largest value")
    add("--overwrite", action="store_true", help="replace an earlier folder")
    return parser


def _batch_size(text: str) -> int | None:
    return None if text == "any" else integer(1)(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    args.towers = list(dict.fromkeys(args.towers))
    try:
        if args.opset and args.form != "onnx":
            raise ValueError(f"--opset {args.opset} has no effect with --format {args.form}")
        if args.form == "onnx" and args.dtype == "bfloat16":
            raise ValueError("--dtype bfloat16: onnxruntime has no such operators on a CPU")
        if args.form == "onnx" and args.device != "cpu":
            raise ValueError(f"--device {args.device} has no effect with --format onnx")
        names = [f"{tower}{end}" for tower in TOWERS for end in ENDINGS.values()]
        names += [f"{tower}{ENDINGS['onnx']}{DATA}" for tower in TOWERS]
        require_replaceable(args.output, [*names, FACTS, VOCABULARY], overwrite=args.overwrite)
        require_form(args.form)
    except ValueError as error:
        parser.error(str(error))
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `export.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    args = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for name in ("onnx_ir", "onnxscript"):  # hundreds of lines on their optimisations
        logging.getLogger(name).setLevel(logging.WARNING)
    from eva_contrastive.model.loading import load_eva_clip, weights_file
    from eva_engine.evaluation.own_data import notes_of_training

    try:
        device = choose_device(args.device)
        noted = notes_of_training(weights_file(args.weights), mean=args.mean, std=args.std)
        dtype = getattr(torch, args.dtype)
        model = load_eva_clip(args.weights, image_size=args.image_size, dtype=dtype).to(device)
        found = export_towers(
            model.requires_grad_(False),
            args.output,
            form=args.form,
            towers=args.towers,
            batch_size=args.batch_size,
            normalize=args.normalize,
            opset=args.opset,
            preparation={
                "mean": list(noted["mean"] or CLIP_MEAN),
                "std": list(noted["std"] or CLIP_STD),
            },
            tolerance=args.tolerance,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"export.py: error: {error}")
    if args.form == "onnx" and args.dtype == "float16" and "text" in found:
        logger.warning(
            "onnxruntime 1.32 crashes on a CPU with a text tower in float16: pass it session "
            "options with graph_optimization_level ORT_ENABLE_EXTENDED, or export in float32"
        )
    for tower, share in found.items():
        logger.info("%s differs from the model by at most %.2g of the largest value", tower, share)
    size = sum(file.stat().st_size for file in args.output.iterdir()) / 2**20
    logger.info("wrote %s, %.1f MiB", args.output, size)
