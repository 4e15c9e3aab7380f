"""Scores of mmengine's evaluators in a few words."""

import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

_PERCENT = {"mIoU": "mIoU", "mAcc": "mAcc", "aAcc": "aAcc"}  # mmseg gives percents
_KINDS = {"bbox": "box", "segm": "mask"}
_PARTS = {
    "mAP": "AP",
    "mAP_50": "AP50",
    "mAP_75": "AP75",
    "AP": "AP",  # from here on of LVIS
    "APr": "APr",
    "APc": "APc",
    "APf": "APf",
}
_OTHERS = 4  # scores of an unknown metric


def score_lines(metrics: Mapping[str, object]) -> list[str]:
    """Describe the scores of an evaluation.

    Args:
        metrics: Name -> value as mmengine's evaluators give them: mmseg's in percent, AP of
            mmdetection in 0..1, which is shown in percent too.

    Returns:
        A line for mIoU and accuracies, one for boxes, one for masks, those that there are; the
        first scores of another metric as they are. Where nothing could be scored it is "-".
    """
    values = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    known = [f"{_PERCENT[name]} {_text(values[name])}" for name in _PERCENT if name in values]
    lines = [", ".join(known)] if known else []
    plain = {name.rpartition("/")[2]: value for name, value in values.items()}
    for kind, word in _KINDS.items():
        parts = [
            f"{short} {_text(100 * plain[f'{kind}_{part}'], digits=1)}"
            for part, short in _PARTS.items()
            if f"{kind}_{part}" in plain
        ]
        if parts:
            lines.append(f"{word} {', '.join(parts)}")
    if not lines:
        others = [name for name in values if not name.endswith("time")][:_OTHERS]
        lines = [", ".join(f"{name} {values[name]:.4g}" for name in others)] if others else []
    return lines


def short_scores(metrics: Mapping[str, object]) -> str:
    """Describe the scores of an evaluation in one line: of each part the first one or two."""
    return "; ".join(", ".join(line.split(", ")[:2]) for line in score_lines(metrics))


def best_before(info: Mapping[str, object], *, metric: str, iteration: int) -> tuple[str, str]:
    """Describe the best weights of a training whose last evaluation was not its best.

    Args:
        info: What mmengine's message hub has of the run.
        metric: Name of the score that decides.
        iteration: Iterations that are done.

    Returns:
        Score and name of the file; both empty if the last weights are the best, or none were kept.
    """
    score, file = info.get("best_score"), info.get("best_ckpt")
    name = Path(str(file)).name if file else ""
    if not isinstance(score, Real) or not name or name.endswith(f"_{iteration}.pth"):
        return "", ""
    return short_scores({metric: score}), name


def _text(value: float, *, digits: int = 2) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.{digits}f}"
