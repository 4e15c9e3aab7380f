"""What a run has logged, and its plots."""

import json

from eva_openmmlab.run_folder import read_scalars
from eva_report.curves import plot_log


def test_the_later_start_counts_and_a_cut_line_is_passed_over(tmp_path):
    starts = {
        "20260101_000000": [
            {"step": 1, "loss": 5.0, "s0.loss_cls": 3.0, "base_lr": 0.1},
            {"step": 2, "loss": 4.0},
            {"step": 2, "mIoU": 10.0, "time": 3.0},
        ],
        "20260102_000000": [{"step": 2, "loss": 3.0}, {"step": 3, "loss": None}],
    }
    for name, entries in starts.items():
        (tmp_path / name / "vis_data").mkdir(parents=True)
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (tmp_path / name / "vis_data" / "scalars.json").write_text(text + '{"step": 9, "lo')
    entries = read_scalars(tmp_path)
    names = {"loss": "training loss", "mIoU": "mIoU"}
    labels = {"x_label": "iteration", "y_label": ""}
    plot = plot_log("", entries, names, step=lambda entry: entry["step"], factor=2, **labels)
    points = {curve.name: curve.points for curve in plot.curves}
    assert points == {"training loss": [(1, 10.0), (2, 6.0)], "mIoU": [(2, 20.0)]}
