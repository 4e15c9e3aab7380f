"""ImageNet-1K and its variants in one table."""

import json
import logging

import numpy as np
import pytest

from eva_classification import commands, evaluation
from eva_data.imagenet import IMAGENET_A, IMAGENET_R
from eva_engine import distributed
from eva_engine.evaluation import own_data

IDS = [f"n{1_440_764 + 7 * label:08}" for label in range(1000)]  # sorted, like the WordNet ids
OBJECTS = {"chair_d/a.png": 40, "clock_a/a.png": 41, "lettuce/a.png": 42, "plate/a.png": 43}


def test_all_sets_in_one_command(
    make_set, make_objectnet, prescribe, tmp_path, monkeypatch, capsys, caplog
):
    logits = np.tile(-np.arange(1000) / 1000, (50, 1))  # class 0 is greatest, and so on

    def say(number, *classes):
        logits[number, list(classes)] = 10 - np.arange(len(classes))

    val = "ILSVRC2012_val_{:08}.JPEG".format
    imagenet = make_set("val", IDS, {f"{IDS[label]}/{val(n)}": n for n, label in
                                     ((1, 5), (2, 10), (3, 0), (4, 700))})  # fmt: skip
    say(1, 5)  # right
    say(2, 11, 10)  # right among five, and by ReaL
    say(3, 1, 2, 3, 4, 5)  # wrong
    say(4, 700)  # right, does not count for ReaL
    (tmp_path / "real.json").write_text(json.dumps([[5], [11, 3], [999], []]))
    v2 = make_set("v2", [], {"10/a.png": 10, "2/a.png": 11})
    say(10, 10)
    say(11, 10, 11, 12, 13, 14)
    folders = {"a": [IDS[i] for i in IMAGENET_A], "r": [IDS[i] for i in IMAGENET_R]}
    a = make_set("a", folders["a"], {f"{IDS[988]}/a.png": 20, f"{IDS[6]}/a.png": 21})
    say(20, 0, 1, 2, 3, 4, 5, 988)  # the others are no classes of ImageNet-A
    say(21, 11)
    r = make_set("r", folders["r"], {f"{IDS[1]}/a.png": 25})
    say(25, 0, 1)
    sketch = make_set("sketch", IDS, {f"{IDS[999]}/a.png": 30})
    say(30, 999)
    objectnet = make_objectnet(OBJECTS)
    say(40, 423, 559)  # barber chair is the second class of Chair
    say(41, 0, 409)
    say(43, 923)
    caplog.set_level(logging.ERROR)  # of folders without images
    monkeypatch.setattr(distributed, "stop", lambda: None)
    monkeypatch.setattr(evaluation, "load_classifier", lambda *_, **__: prescribe(logits))
    monkeypatch.setattr(own_data, "notes_of_training", lambda _, **given: given)
    options = {"imagenet": imagenet, "real": tmp_path / "real.json", "v2": v2, "a": a, "r": r,
               "sketch": sketch, "objectnet": objectnet, "weights": "eva_debug", "workers": 0,
               "batch-size": 2, "device": "cpu", "output": tmp_path / "out"}  # fmt: skip
    commands.evaluate([f"--{key}={value}" for key, value in options.items()])
    others = ("wrote", "set ", "took", "report", "next")
    printed = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in printed if not line.startswith(others)]
    assert [[row[0], row[-1], *row[1:3]] for row in rows[:7]] == [
        ["ImageNet-1K", "4", "50.000", "75.000"],
        ["ImageNet-V2", "2", "50.000", "50.000"],
        ["ImageNet-ReaL", "3", "66.667", "66.667"],
        ["ImageNet-A", "2", "50.000", "100.000"],
        ["ImageNet-R", "1", "100.000", "100.000"],
        ["ImageNet-Sketch", "1", "100.000", "100.000"],
        ["ObjectNet", "3", "33.333", "100.000"],
    ]
    average = (50 + 50 + 200 / 3 + 50 + 100 + 100) / 6
    assert rows[7:] == [["average", "of", "six", f"{average:.3f}"],
                        ["gap", "to", "1K", f"{50 - average:.3f}"]]  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["average"] == pytest.approx(average)
    assert results["sets"]["ImageNet-ReaL"]["right1"] == 2
    sliced = logits[20, list(IMAGENET_A)], logits[21, list(IMAGENET_A)]
    loss = np.mean([np.log(np.exp(row).sum()) - row[label]
                    for row, label in zip(sliced, (199, 0), strict=True)])  # fmt: skip
    assert results["sets"]["ImageNet-A"]["loss"] == pytest.approx(loss, rel=1e-5)
