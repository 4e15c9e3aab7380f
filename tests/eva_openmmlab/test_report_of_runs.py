"""What a run has logged, and its scores in a few words."""

import json

from eva_openmmlab.report import curve
from eva_openmmlab.run_folder import read_scalars


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
