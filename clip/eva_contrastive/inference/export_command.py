"""Command line of `clip/export.py`; what exports is imported when it is needed."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_data.files import require_replaceable
from eva_engine.commands.options import add_weights, choose_device, new_parser
from eva_report.demos import log_to_terminal, refuse
from eva_runs.commands import program_name, say
from eva_runs.exported import DATA, ENDINGS, require_form
from eva_runs.options import integer, number

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


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "clip/export.py",
        "Write the towers of an EVA-CLIP (normalised pictures or tokens in, features out) for "
        "programs without this toolkit. Each file is compared with its tower before it is kept.",
        epilog=_EXAMPLE,
    )
    add_weights(parser, kinds="of a complete EVA-CLIP")
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
        refuse(parser, error)
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `clip/export.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    args = _parse(arguments)
    log_to_terminal()
    for name in ("onnx_ir", "onnxscript"):  # hundreds of lines on their optimisations
        logging.getLogger(name).setLevel(logging.WARNING)
    from eva_contrastive.model.open_clip_program import weights_file

    try:
        weights_file(args.weights)  # a mistyped name is answered before torch is imported
        import torch

        from eva_contrastive.inference.export import export_towers
        from eva_contrastive.model.loading import load_eva_clip
        from eva_contrastive.model.preparation import find_preparation

        device = choose_device(args.device)
        noted = find_preparation(
            args.weights, image_size=args.image_size, mean=args.mean, std=args.std
        )
        dtype = getattr(torch, args.dtype)
        model = load_eva_clip(args.weights, image_size=noted.image_size, dtype=dtype).to(device)
        found = export_towers(
            model.requires_grad_(False),
            args.output,
            form=args.form,
            towers=args.towers,
            batch_size=args.batch_size,
            normalize=args.normalize,
            opset=args.opset,
            preparation={
                "mean": list(noted.mean or CLIP_MEAN),
                "std": list(noted.std or CLIP_STD),
            },
            tolerance=args.tolerance,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"{program_name('clip/export.py')}: error: {error}")
    if args.form == "onnx" and args.dtype == "float16" and "text" in found:
        logger.warning(
            "onnxruntime 1.32 crashes on a CPU with a text tower in float16: pass it session "
            "options with graph_optimization_level ORT_ENABLE_EXTENDED, or export in float32"
        )
    for tower, share in found.items():
        say(f"{tower}: differs from the model by at most {share:.2g} of the largest value")
    size = sum(file.stat().st_size for file in args.output.iterdir()) / 2**20
    say(f"output   {args.output} ({size:.1f} MiB)")


if __name__ == "__main__":
    main()
