r"""Weights between those that a training began with and those that it ended with (WiSE-FT).

    python clip/interpolate.py eva_clip_psz14.pt output/eva_clip_own_pairs \
        --share 0.25 0.5 0.75 --output output/between

Fine-tuning gains on its own kind of data and loses elsewhere; weights on the line between start and
end often keep most of both (Wortsman et al., "Robust fine-tuning of zero-shot models",
https://arxiv.org/abs/2109.01903). Evaluate several shares, and keep the one that suits.

START and END are files of a complete CLIP, names of official ones, or folders of runs, of which the
newest complete checkpoint is taken. Each share of END gives a file `share_0.5.safetensors`, under
this toolkit's names, in float32, with the notes of END.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_data.files import make_folder
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import check_outputs, program, say
from eva_runs.options import add_download_option, probability


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", help="weights that the training began with")
    parser.add_argument("end", help="weights that it ended with, or the folder of its run")
    parser.add_argument("--ema", action="store_true", help="END: take the run's moving average")
    parser.add_argument(
        "--share", type=probability, nargs="+", default=[0.5], help="shares of END (default: 0.5)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="their folder")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier files")
    add_download_option(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    from eva_engine.commands.convert import find_source  # here, so that --help comes at once

    sources = {
        "start": find_source(options.start, ema=False),
        "end": find_source(options.end, ema=options.ema),
    }
    make_folder(options.output)
    files = [options.output / f"share_{share:g}.safetensors" for share in options.share]
    check_outputs(files, overwrite=options.overwrite, inputs=sources)
    # here, so that mistakes are answered at once
    from eva_contrastive.model.loading import read_clip_weights
    from eva_contrastive.steps.interpolation import interpolate
    from eva_engine.checkpoints.files import read_config, save_weights

    start, end = (read_clip_weights(source) for source in sources.values())
    notes: dict[str, Any] | None = read_config(sources["end"])
    for share, file in zip(options.share, files, strict=True):
        save_weights(interpolate(start, end, share), file, notes)
        say(f"{file}: {share:g} of {sources['end']}, {1 - share:g} of {sources['start']}")
    return 0


main = program(parse, _run, refused=1, name="clip/interpolate.py")


if __name__ == "__main__":
    sys.exit(main())
