"""Command line of `segmentation/test.py`: scores a segmentor on the config's test set."""

import argparse
import sys

from mmseg.registry import RUNNERS

from eva_segmentation import custom_data
from eva_segmentation.options import check_files
from eva_segmentation.train import add_shared_arguments, configure


def main(argv: list[str] | None = None) -> None:
    """Evaluate weights as a config says.

    Args:
        argv: Command line; None means that of the process.
    """
    parser = argparse.ArgumentParser(description="Evaluate a segmentor.")
    add_shared_arguments(parser)
    parser.add_argument("weights", help="name of an official file, or a path")
    parser.add_argument("--tta", action="store_true", help="several scales, by tta_pipeline")
    parser.add_argument("--out", metavar="DIR", help="save the predicted label maps there")
    parser.add_argument("--show-dir", metavar="DIR", help="save pictures with predictions there")
    custom_data.add_arguments(parser, training=False)
    args = parser.parse_args(argv)
    try:
        cfg = configure(args)
        cfg.load_from, cfg.resume = args.weights, False
        if args.out is not None:
            cfg.test_evaluator.update(output_dir=args.out, keep_results=True)
        if args.show_dir is not None:
            cfg.default_hooks.visualization.update(draw=True)
            cfg.visualizer.save_dir = args.show_dir
        if args.tta:
            if not cfg.get("tta_model"):
                raise ValueError(f"{args.config} has no tta_model; leave --tta out")
            cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
            cfg.model = cfg.tta_model | dict(module=cfg.model)
        check_files(cfg, ("test_dataloader",))
        RUNNERS.build(cfg).test()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"test.py: {error}")
