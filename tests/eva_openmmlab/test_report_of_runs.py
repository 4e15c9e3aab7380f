"""What a run has logged, and its scores in a few words."""

import json

import pytest

from eva_openmmlab.report import curve
from eva_openmmlab.run_folder import read_scalars
from eva_openmmlab.terminal import score_lines


def test_the_later_start_counts_and_a_cut_line_is_passed_over(tmp_path):
    starts = {
        "20260101_000000": [
            {"step": 1, "loss": 5.0, "s0.loss_cls": 3.0, "base_lr": 0.1},
            {"step": 2, "loss": 4.0},
            {"step": 2, "mIoU": 10.0, "time": 3.0},
        ],
        "20260102_000000": [{"step": 2, "loss": 3.0}, {"step": 3, "loss": float("nan")}],
    }
    for name, entries in starts.items():
        (tmp_path / name / "vis_data").mkdir(parents=True)
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (tmp_path / name / "vis_data" / "scalars.json").write_text(text + '{"step": 9, "lo')
    entries = read_scalars(tmp_path)
    assert curve(entries, "loss").points == [(1, 5.0), (2, 3.0)]  # NaN has no place in a plot
    assert curve(entries, "mIoU", factor=2).points == [(2, 20.0)]


@pytest.mark.parametrize(
    ("metrics", "lines"),
    [
        (
            {"aAcc": 54.2, "mIoU": 24.39, "mAcc": 47.97, "time": 0.8},
            ["mIoU 24.39, mAcc 47.97, aAcc 54.20"],
        ),
        (
            {"coco/bbox_mAP": 0.048, "coco/bbox_mAP_50": 0.101, "coco/bbox_mAP_s": -1.0,
             "coco/segm_mAP": float("nan")},
            ["box AP 4.8, AP50 10.1", "mask AP -"],
        ),
        ({"lvis/bbox_AP": 0.3, "lvis/bbox_APr": 0.2}, ["box AP 30.0, APr 20.0"]),
        ({"my/score": 3, "data_time": 2.0}, ["my/score 3"]),
        ({}, []),
    ],
)  # fmt: skip
def test_scores_are_a_few_words(metrics, lines):
    assert score_lines(metrics) == lines
