"""The report of a run: numbers, pictures, one page without references to other files."""

import base64
import contextlib
import errno
import json
import math
import re

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO
from PIL import Image

from eva_data import files
from eva_detection.evaluation import report
from eva_detection.evaluation.predictions import Predictions, PredictionWriter, write_results
from eva_detection.evaluation.report import read_metrics, results_table, write_report

METRICS = [
    {"iteration": 0, "total_loss": 9.0, "loss_mask": 0.7, "loss_rpn_cls": 0.6, "lr": 1e-4},
    {"iteration": 1, "total_loss": 5.0, "loss_mask": 0.6, "loss_rpn_cls": 0.5, "lr": 1e-3},
    {"iteration": 2, "total_loss": 3.0, "loss_mask": 0.5, "loss_rpn_cls": 0.4, "lr": 1e-3},
    {"iteration": 3, "bbox/AP": 12.345},  # the evaluation at the end of three iterations
]
RESULTS = {
    "bbox": {"AP": 41.26, "AP50": 60.0, "APl": None, "AP-3": 7.0},
    "segm": {"AP": 33.14, "AP50": 58.0, "APl": None, "AP-3": 6.0},
}

DATA = {
    "images": [{"id": 1, "file_name": "0.png", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [],
}


@pytest.fixture
def dataset(demo_data):
    return demo_data / "digit_scenes" / "coco"


@pytest.fixture
def predictions(dataset):
    """The annotations themselves, as a detector would have found them."""
    content = json.loads((dataset / "annotations" / "instances_val.json").read_text())
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{key: entry[key] for key in keys} | {"score": 0.9} for entry in content["annotations"]]


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


def test_metrics_of_a_continued_run(write_run):
    again = [METRICS[1] | {"total_loss": 4.5}, METRICS[2] | {"total_loss": 2.5}]
    evaluation = [{"iteration": 2, "bbox/AP": 7.0}]
    metrics = read_metrics(write_run(metrics=[*METRICS[:3], *again, *evaluation]))
    assert [entry["iteration"] for entry in metrics] == [0, 1, 2]
    assert [entry["total_loss"] for entry in metrics] == [9.0, 4.5, 2.5]
    assert metrics[2] == METRICS[2] | {"total_loss": 2.5, "bbox/AP": 7.0}


def test_metrics_of_a_run_killed_while_it_wrote(write_run):
    """Half a line, and the continued run's lines behind it."""
    run = write_run(metrics=METRICS[:2])
    whole = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(f'{whole}{{"iteration": 2, "total_lo')
    assert [entry["iteration"] for entry in read_metrics(run)] == [0, 1]
    with (run / "metrics.json").open("a") as file:
        file.writelines(f"{json.dumps(entry)}\n" for entry in METRICS[1:3])
    assert [entry["iteration"] for entry in read_metrics(run)][-1] == 2


def test_table():
    lines = results_table(RESULTS).splitlines()
    assert lines[0].split() == ["bbox", "segm"]
    assert [line.split() for line in lines[1:]] == [
        ["AP", "41.3", "33.1"],
        ["AP50", "60.0", "58.0"],
        ["APl", "-", "-"],
        ["AP-3", "7.0", "6.0"],
    ]
    assert len({len(line) for line in lines}) == 1, "columns are not aligned"


def test_table_of_boxes_alone():
    lines = results_table({"bbox": RESULTS["bbox"]}).splitlines()
    assert lines[0].split() == ["bbox"]
    assert lines[1].split() == ["AP", "41.3"]


def _pictures(page):
    encoded = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    return [base64.b64decode(text, validate=True) for text in encoded]


def test_report_is_one_page_with_both_pictures(write_run, dataset):
    run = write_run()
    page = write_report(run, dataset)
    assert page == run / "report.html"
    text = page.read_text(encoding="utf-8")
    pictures = _pictures(text)
    assert len(pictures) == text.count("<img") == 2
    assert pictures == [(run / n).read_bytes() for n in ("predictions.png", "loss_curve.png")]
    for picture in pictures:
        assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).std() > 5
    without_pictures = re.sub(r'src="data:[^"]+"', "", text)
    assert not re.search(r"src=|href=|url\(|https?:|@import|<script", without_pictures)
    for line in results_table(RESULTS).splitlines():
        assert line in text
    assert "EVA" in text


def test_predictions_are_parsed_once(write_run, dataset, monkeypatch):
    def refuse(_):
        raise AssertionError("pycocotools reads a file that was read already")

    monkeypatch.setattr("pycocotools.coco.json.load", refuse)
    assert write_report(write_run(), dataset).exists()


def test_report_counts_iterations(write_run, dataset):
    """detectron2 logs the last evaluation under the iteration after the last."""
    text = write_report(write_run(), dataset).read_text(encoding="utf-8")
    assert re.search(r"\b3 iterations", text)


def test_truth_and_sure_predictions_are_drawn(write_run, dataset, predictions, monkeypatch):
    drawn = {"truth": [], "found": []}
    draw = report._draw_instances

    def record(axis, image, annotations, *rest):
        drawn[axis.get_title()].append([a["category_id"] for a in annotations])
        before = len(axis.images) + len(axis.patches)
        draw(axis, image, annotations, *rest)
        # the photograph, a mask and a box each
        assert len(axis.images) + len(axis.patches) - before == 1 + 2 * len(annotations)

    monkeypatch.setattr(report, "_draw_instances", record)
    scores = [0.49, 0.5, 0.9]
    found = [entry | {"score": scores[i % 3]} for i, entry in enumerate(predictions)]
    write_report(write_run(found=found), dataset)
    for title, entries in (("truth", predictions), ("found", found)):
        expected = [
            [e["category_id"] for e in entries if e["image_id"] == i and e["score"] >= 0.5]
            for i in range(1, 7)
        ]
        assert drawn[title] == expected
    assert drawn["truth"] != drawn["found"]


def test_report_of_a_model_that_finds_nothing(write_run, dataset):
    nothing = {task: {"AP": None, "AP50": None} for task in RESULTS}
    text = write_report(write_run(results=nothing, found=[]), dataset).read_text(encoding="utf-8")
    assert len(_pictures(text)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_report_of_odd_losses(write_run, dataset, value):
    """Neither NaN nor a value that a logarithmic axis cannot show stops the report."""
    metrics = [METRICS[0], METRICS[1] | {"total_loss": value, "loss_mask": value}, *METRICS[2:]]
    run = write_run(metrics=metrics)
    write_report(run, dataset)
    assert cv2.imread(str(run / "loss_curve.png")).std() > 5


def test_report_of_nan_scores(write_run, dataset):
    """Written by detectron2's stock trainer or an older run: NaN, which Python's json reads."""
    scores = {"AP": math.nan, "AP50": 1.0}
    run = write_run(results={"bbox": scores, "segm": scores})
    assert len(_pictures(write_report(run, dataset).read_text(encoding="utf-8"))) == 2


def test_report_of_a_run_too_short_to_log(write_run, dataset):
    """`train.max_iter` below `train.log_period`: the evaluation is the only entry."""
    run = write_run(metrics=METRICS[3:])
    assert len(_pictures(write_report(run, dataset).read_text(encoding="utf-8"))) == 2


def test_a_run_without_scores(write_run, dataset):
    for results in ({}, {"bbox": {}}, {"segm": {}, "bbox": {}}):
        assert results_table(results).startswith("no scores: nothing was found")
    page = write_report(write_run(results={}, found=[]), dataset).read_text()
    assert "no scores: nothing was found" in page


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", b"", "results.json is not JSON"),
        ("results.json", b"[]", "results.json is not what an evaluation leaves"),
        ("results.json", b'{"bbox": 5}', "results.json is not what an evaluation leaves"),
        ("results.json", b'{"bbox": {"AP": "5"}}', "results.json is not what an evaluation leaves"),
        ("results.json", None, "results.json is not there"),
        ("metrics.json", None, "metrics.json is not there"),
        ("inference/coco_instances_results.json", None, "coco_instances_results.json is not"),
        ("inference/coco_instances_results.json", b"[" * 200_000, "results.json is not JSON"),
        ("inference/coco_instances_results.json", b"{", "results.json is not JSON"),
        ("inference/coco_instances_results.json", b'{"a": 1}', "holds no predictions for this"),
        ("inference/coco_instances_results.json", b"[5]", "holds no predictions for this data"),
        ("inference/coco_instances_results.json", b'[{"image_id": 999}]', "holds no predictions"),
        (
            "inference/coco_instances_results.json",
            b'[{"image_id": 1}]',
            "holds no predictions|draw",
        ),
    ],
)
def test_damaged_files_are_named(name, content, message, write_run, dataset):
    run = write_run()
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message):
        write_report(run, dataset)
    assert not (run / "report.html").exists()


def test_damaged_truth_and_odd_metrics_are_met(write_run, dataset, tmp_path):
    odd = ["[1]", "5", '{"loss": 1}', '{"iteration": "2"}', '{"iteration": 9, "total_loss": "x"}']
    run = write_run()
    with (run / "metrics.json").open("a") as file:
        file.write("\n".join(odd))
    assert [entry["iteration"] for entry in read_metrics(run)] == [0, 1, 2, 3, 9]
    write_report(run, dataset)
    (tmp_path / "annotations").mkdir()
    truth = tmp_path / "annotations" / "instances_val.json"
    for content in ("[]", "{}", '{"images": 5}', '{"images": [5]}', '{"images": [{"id": 1}]}'):
        truth.write_text(content)
        with pytest.raises(ValueError, match=r"instances_val\.json is not in COCO format"):
            write_report(run, tmp_path)


def _summarize(file):
    with contextlib.closing(Predictions(file.parent, "scenes", ranks=[0])) as predictions:
        predictions.summarize(file)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: write_results({"bbox": {"AP": 1.0}}, file),
        lambda file: report.draw_loss_curve([{"iteration": 0, "total_loss": 1.0}], file),
        lambda file: report.draw_contact_sheet(COCO(DATA), COCO(DATA), file.parent, file),
        _summarize,
    ],
)
def test_files_are_written_completely_or_not_at_all(write, tmp_path, monkeypatch):
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    PredictionWriter(tmp_path, "scenes", rank=0).append([[]], masks=False)
    file = tmp_path / "output.png"
    file.write_text("as before")

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(files.UnwritableError, match=r"output\.png cannot be written: No space"):
        write(file)
    assert file.read_text() == "as before"
    assert not list(tmp_path.glob(".*"))
