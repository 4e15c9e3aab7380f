"""`eva compare`: runs of each task, of a framework each, and what has nothing to compare."""

import json

import pytest

TASKS = {
    "detection": "box AP",
    "mmdetection": "box AP",
    "segmentation": "mIoU",
    "classification": "top1",
    "video": "top1",
}


@pytest.mark.parametrize(("task", "metric"), TASKS.items(), ids=TASKS)
def test_a_run_does_not_differ_from_itself(finished, call_eva, task, metric):
    ended = call_eva(
        "eva", "compare", finished(task), finished(task), "--draws", 20, "--json", code=0
    )
    entries = {entry["metric"]: entry for entry in json.loads(ended.out)}
    assert {entries[metric][name] for name in ("low", "high")} <= {0.0}
    assert entries[metric]["first"] == entries[metric]["second"]


def test_what_has_no_evaluation_is_named(finished, call_eva, fails, tmp_path):
    ended = call_eva("eva", "compare", finished("classification"), tmp_path)
    fails(ended, tmp_path)
