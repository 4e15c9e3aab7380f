"""Predictions that an evaluation leaves for its report."""

from pathlib import Path

from mmengine.evaluator import Evaluator

PREDICTIONS = "inference/coco_instances_results"  # and .bbox.json or .segm.json


def keep_predictions(evaluator: Evaluator, folder: Path) -> Evaluator:
    """Let mmdetection's metrics of COCO's kind write their predictions below a folder.

    Without a prefix of the config's own they would write them too, into a temporary one.

    Args:
        evaluator: Metrics.
        folder: Work folder of the run.

    Returns:
        The same metrics.
    """
    for metric in evaluator.metrics:
        if getattr(metric, "outfile_prefix", "") is None:
            metric.outfile_prefix = str(folder / PREDICTIONS)
    return evaluator
