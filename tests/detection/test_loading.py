"""The data of a run is built once, annotations are parsed once; an evaluation's workers end."""

import json
from collections import Counter

import pytest
from detectron2.data import DatasetCatalog

from eva_data.detection import coco
from eva_detection.evaluation import evaluators
from eva_detection.evaluation.test_set import EvaluationSet

TWO_EVALUATIONS = ("train.max_iter=2", "train.eval_period=1")


@pytest.fixture
def read(registered_demo_data, monkeypatch):
    """Counter of what this process reads: data sets, and annotation files for the scorer."""
    found = Counter()

    def counted(name, function):
        return lambda *arguments: (found.update([name]), function(*arguments))[1]

    for part in ("digit_scenes_train", "digit_scenes_val"):
        function = DatasetCatalog.data[part]
        monkeypatch.setitem(DatasetCatalog.data, part, counted(part, function))
    load, truth = coco.load_json, evaluators.COCO
    monkeypatch.setattr(coco, "load_json", lambda file: counted(file.name, load)(file))
    monkeypatch.setattr(evaluators, "COCO", counted("truth", truth))
    return found


@pytest.fixture
def train(tiny_config, train_here, tmp_path):
    """Function: train and evaluate in this process."""

    def run():
        (tmp_path / "run").mkdir()
        cfg = tiny_config(f"train.output_dir={tmp_path / 'run'}", *TWO_EVALUATIONS)
        train_here(cfg)
        return json.loads((tmp_path / "run" / "results.json").read_text())

    return run


def test_registered_sets(train, read):
    assert train().keys() == {"bbox", "segm"}
    assert read == {"digit_scenes_train": 1, "digit_scenes_val": 1, "truth": 1}


def test_a_second_evaluation_is_the_first_again(tiny_config, make_tiny_detector, read, tmp_path):
    """Though the annotations are kept, which scorers write into."""
    cfg = tiny_config(f"train.output_dir={tmp_path}", "dataloader.evaluator.tasks=[segm,bbox]")
    test_set, model = EvaluationSet(cfg), make_tiny_detector()
    first, second = (test_set.score(model) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert read == {"digit_scenes_val": 1, "truth": 1}


def test_a_data_set_that_cannot_be_read_is_read_once(
    registered_demo_data, tiny_config, make_tiny_detector, monkeypatch, tmp_path
):
    reads = []

    def read_dataset():
        reads.append(1)
        raise OSError("the disk is gone")

    monkeypatch.setitem(DatasetCatalog.data, "digit_scenes_val", read_dataset)
    with pytest.raises(Exception, match="the disk is gone"):
        EvaluationSet(tiny_config(f"train.output_dir={tmp_path}")).score(make_tiny_detector())
    assert len(reads) == 1
