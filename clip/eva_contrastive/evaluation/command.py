"""Command line of `clip/evaluate_zero_shot.py`; what evaluates is imported when it is needed."""

import argparse
from typing import TYPE_CHECKING

from eva_contrastive.evaluation.options import check_paths, parse
from eva_engine.commands.options import command

if TYPE_CHECKING:
    import torch

PROGRAM = "clip/evaluate_zero_shot.py"


def _evaluate(options: argparse.Namespace, device: "torch.device") -> None:
    from eva_contrastive.evaluation.evaluating import evaluate

    evaluate(options, device)


main = command(PROGRAM, lambda arguments: parse(PROGRAM, arguments), _evaluate, check=check_paths)


if __name__ == "__main__":
    main()
