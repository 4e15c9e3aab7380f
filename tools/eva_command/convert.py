r"""Convert a checkpoint to the form that another project loads, or back.

    eva convert eva_coco_seg.pth --to detectron2-vitdet --output stock.pth
    eva convert stock.pth --to official --output ours.pth
    eva convert eva_psz14.pt --to detectron2-vitdet --patch-size 16 \
        --output backbone.pth
    eva convert output/eva_g_pretrain --to official --dtype fp16 \
        --patch-size 16 --output my_eva_psz14to16.pt
    eva convert output/eva_g_pretrain --to timm --output eva_g_timm
    eva convert output/dinov3_run --to transformers --output dinov3_hub
    eva convert eva_clip_psz14.pt --to open-clip --output eva_clip_g
    eva convert eva_clip_g --to official --output my_eva_clip.pt
    eva convert output/run --merge-lora --output merged.safetensors

The source is a file, the name of an official one, the output folder of a run of any trainer (its
best weights if it kept them, else those of its newest checkpoint), or a folder that timm,
transformers or open_clip reads. `detectron2-vitdet` is what an unmodified ViTDet of detectron2
loads; `official` is EVA-g's form, which this toolkit and the official code load (this toolkit loads
both), and has this toolkit's names for other plain ViTs.
Outputs of the model stay the same. The output (`.pth`, `.pt`: weights under "model";
`.safetensors`) appears when it is complete. `timm` and `open-clip` are folders for these programs,
which read them as the model `local-dir:FOLDER`; `transformers` (DINOv2, DINOv3 and SigLIP 2) is one
for `AutoModel.from_pretrained`. The program must be installed to write one, for its outputs are
compared with ours. --merge-lora writes adapters merged with their base, as other
commands read them, and compares outputs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_data.saving import require_free, require_replaceable
from eva_runs.commands import Command, lazy_import
from eva_runs.options import add_download_option, command_parser, integer

SUFFIXES = (".pth", ".pt", ".safetensors")
FOLDERS = {  # form that is a folder -> its files
    "open-clip": ("open_clip_config.json", "open_clip_model.safetensors", "README.md"),
    "timm": ("config.json", "model.safetensors", "README.md"),
    "transformers": ("config.json", "model.safetensors", "README.md"),
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add, forms = parser.add_argument, ("detectron2-vitdet", "official", "mmdet", *FOLDERS)
    help_text = "file, name, or folder of a run, of timm, transformers or open_clip"
    add("source", help=help_text)
    add("--ema", action="store_true", help="take the moving average of a run")
    add("--merge-lora", action="store_true", help="merge adapters with their base; no --to")
    add("--to", choices=forms, help="form of the output")
    add("--output", type=Path, required=True, help=".pth, .pt or .safetensors; or a folder")
    add("--dtype", choices=("fp16", "fp32"), help="by default as in the source")
    add("--patch-size", type=integer(1), metavar="P", help="resample patches and positions to it")
    add("--overwrite", action="store_true", help="replace an earlier output")
    add_download_option(parser)
    args = parser.parse_args(arguments)
    if args.merge_lora == bool(args.to) or (args.merge_lora and (args.dtype or args.patch_size)):
        parser.error("give --to FORM, or --merge-lora without --to, --dtype and --patch-size")
    if args.to not in FOLDERS and args.output.suffix not in SUFFIXES:
        parser.error(f"--output {args.output} must end in one of {', '.join(SUFFIXES)}")
    if args.to in FOLDERS:
        require_replaceable(args.output, FOLDERS[args.to], overwrite=args.overwrite)
    else:
        require_free([args.output], overwrite=args.overwrite)
    return args


main = Command("eva convert", parse, lazy_import("eva_command.conversion:run"))
