"""Command line of `video/evaluate_frozen.py`; what evaluates is imported when it is needed."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import POOLINGS
from eva_data.video.source import BACKENDS
from eva_engine.commands.options import (
    add_arguments,
    add_frozen,
    add_weights,
    command,
    new_parser,
    parse_with_weights,
)
from eva_engine.config import LARGEST_SEED
from eva_runs.options import integer, number
from eva_runs.required_data import require_data
from eva_video.config import MOST_FRAMES, PROBE_EPOCHS, PROBE_RATES

if TYPE_CHECKING:
    import torch

PROGRAM = "video/evaluate_frozen.py"
_EXAMPLES = """
How much do these weights know of my classes? Minutes, and nothing is trained but small classifiers:
    python video/evaluate_frozen.py --weights eva_video_k722.pth --train mine/train --val mine/val

The attentive probe is one block: a learned query attends to all tokens of a clip, as in V-JEPA.
Tokens wait in memory; where they are more than --probe-gb, the probe gets the mean of each frame.
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "A quick check of weights on videos: the backbone is frozen, its features are computed "
        "once, and nearest neighbours, a linear classifier and an attentive probe are scored. What "
        "there is to choose is chosen on a fifth of --train.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, kinds="of pictures or videos", alone=True)
    add = parser.add_argument
    add("--pooling", choices=POOLINGS, help="default: what the weights were trained for")
    add("--frames", type=integer(1, MOST_FRAMES), help="of a clip (default: the weights', or 8)")
    add_frozen(parser, data="list of videos, folder of class folders or shards", unit="videos")
    add("--root", help="folder that the paths of lists begin in (default: the list's)")
    add("--val-root", help="the same for --val (default: --root)")
    add("--classes", help="text file with the classes in label order (default: those of --train)")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    add(
        "--probe",
        choices=("auto", "tokens", "frames", "none"),
        default="auto",
        help="what the attentive probe sees: all tokens, or the mean of each frame; auto: tokens "
        "where they fit into --probe-gb",
    )
    add("--probe-gb", type=number(0), default=8.0, help="memory for them in each process "
        "(default: %(default)s)")  # fmt: skip
    rates = " ".join(f"{rate:g}" for rate in PROBE_RATES)
    add("--probe-lr", type=number(0), nargs="+", help=f"learning rates to try (default: {rates})")
    add("--probe-epochs", type=integer(1), help=f"default: {PROBE_EPOCHS}, more for few videos")
    add("--seed", type=integer(0, LARGEST_SEED), default=0,
        help="of the attentive probe (default: 0)")  # fmt: skip
    add_arguments(parser, batch_size=4)
    options = parse_with_weights(parser, arguments)
    for name, value in (("lr", options.probe_lr), ("epochs", options.probe_epochs)):
        if value is not None and options.probe == "none":
            parser.error(f"--probe-{name} has no effect with --probe none")
    options.probe_lr = options.probe_lr or list(PROBE_RATES)
    if not options.neighbours and not options.l2 and options.probe == "none":
        parser.error("nothing to score: --neighbours and --l2 are empty, and there is no --probe")
    return options


def _evaluate(options: argparse.Namespace, device: "torch.device") -> None:
    from eva_video.evaluation.frozen_scoring import evaluate

    evaluate(options, device)


def _check(options: argparse.Namespace) -> None:
    """Answer mistyped paths before torch is imported."""
    resolve_source(options.weights)
    for name in ("train", "val"):
        require_data(
            getattr(options, name),
            name=f"--{name}",
            forms="class folders, lists or shards",
        )


main = command(PROGRAM, _parse, _evaluate, check=_check)


if __name__ == "__main__":
    main()
