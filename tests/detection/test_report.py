"""The report of a run: what it says of a training, an evaluation, and of what is missing."""

import json

import pytest

from eva_detection.evaluation import report
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.training.output_folder import read_metrics
from eva_report.content import Curves

METRICS = [
    {"iteration": 0, "total_loss": 9.0, "loss_cls_stage0": 1.0, "loss_cls_stage2": 0.6, "lr": 1e-4},
    {"iteration": 1, "total_loss": 5.0, "loss_cls_stage0": 0.9, "loss_cls_stage2": 0.5, "lr": 1e-3},
    {"iteration": 1, "bbox/AP": 2.5, "segm/AP": 2.0},
    {"iteration": 2, "total_loss": 3.0, "loss_cls_stage0": 0.8, "loss_cls_stage2": 0.4, "lr": 1e-3},
    {"iteration": 3, "bbox/AP": 12.345},  # the evaluation at the end of three iterations
]
RESULTS = {
    "bbox": {"AP": 41.26, "AP50": 60.0, "APl": None, "AP-3": 7.0},
    "segm": {"AP": 33.14, "AP50": 58.0, "APl": None, "AP-3": 6.0},
}


@pytest.fixture(scope="module")
def predictions(demo_data):
    """The annotations themselves, as a detector would have found them."""
    file = demo_data / "digit_scenes/coco/annotations/instances_val.json"
    keys = ("image_id", "category_id", "bbox", "segmentation")
    entries = json.loads(file.read_text())["annotations"]
    return [{key: entry[key] for key in keys} | {"score": 0.9} for entry in entries]


@pytest.fixture
def write_run(tmp_path, predictions):
    """Function: a small run's files."""

    def write(*, metrics=METRICS, results=RESULTS, found=None):
        run = tmp_path / "run"
        (run / "inference").mkdir(parents=True, exist_ok=True)
        (run / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in metrics))
        (run / "results.json").write_text(json.dumps(results))
        found = predictions if found is None else found
        (run / "inference" / "coco_instances_results.json").write_text(json.dumps(found))
        return run

    return write


@pytest.fixture
def made(registered_demo_data, tiny_config):
    """Function: the content of the report of a folder."""

    def make(run, *overrides, kind="training", without=()):
        cfg = tiny_config(f"train.output_dir={run}", *overrides)
        for name in without:
            cfg.dataloader.pop(name)
        return report.make_report(
            cfg, EvaluationSet(cfg), kind=kind, processes=1, recipe="demo/mine"
        )

    return make


def test_curves_of_a_training(write_run, made):
    losses, rate, scores = (
        section for section in made(write_run()).sections[1:4] if isinstance(section, Curves)
    )
    assert [curve.name for curve in losses.curves] == ["total_loss", "loss_cls_stage2"]
    assert losses.logarithmic
    assert list(losses.curves[0].points) == [(1, 9.0), (2, 5.0), (3, 3.0)]
    assert [curve.name for curve in rate.curves] == ["learning rate"]
    assert {curve.name: list(curve.points) for curve in scores.curves} == {
        "box": [(2, 2.5), (3, 12.345)],
        "mask": [(2, 2.0)],
    }


def test_metrics_of_a_continued_run(write_run):
    again = [METRICS[1] | {"total_loss": 4.5}, METRICS[3] | {"total_loss": 2.5}]
    evaluation = [{"iteration": 2, "bbox/AP": 7.0}]
    metrics = read_metrics(write_run(metrics=[*METRICS[:2], METRICS[3], *again, *evaluation]))
    assert [entry["iteration"] for entry in metrics] == [0, 1, 2]
    assert [entry["total_loss"] for entry in metrics] == [9.0, 4.5, 2.5]
    assert metrics[2] == METRICS[3] | {"total_loss": 2.5, "bbox/AP": 7.0}
