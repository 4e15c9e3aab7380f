"""The data of a run is built once: each file of annotations is parsed once in a process."""

import json
from collections import Counter

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler

from eva_detection.config.command_line import make_parser
from eva_detection.data import coco_files
from eva_detection.data.custom_data import apply_custom_data
from eva_detection.data.loading import TestSet, build_training_data
from eva_detection.data.lvis import repeat_factors
from eva_detection.evaluation import evaluators
from eva_detection.training import train as train_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]
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
    monkeypatch.setattr(coco_files, "_kept", {})
    load, score = coco_files._load, evaluators._read_annotations
    monkeypatch.setattr(coco_files, "_load", lambda file: counted(file.name, load)(file))
    monkeypatch.setattr(evaluators, "_read_annotations", counted("truth", score))
    return found


@pytest.fixture
def train(tiny_config, tmp_path):
    """Function: train and evaluate in this process, with own data if there is any."""

    def run(*flags, **more):
        (tmp_path / "run").mkdir()
        cfg = tiny_config(f"train.output_dir={tmp_path / 'run'}", *TWO_EVALUATIONS)
        apply_custom_data(cfg, make_parser().parse_args([*flags, "--config-file", "unused"]))
        train_module.train(cfg, resume=False, **more)
        return json.loads((tmp_path / "run" / "results.json").read_text())

    return run


def test_registered_sets(train, read):
    assert train().keys() == {"bbox", "segm"}
    assert read == {"digit_scenes_train": 1, "digit_scenes_val": 1, "truth": 1}


def _own(demo_data, train, val):
    folder = demo_data / "digit_scenes" / "coco"
    for part, name in (("train", train), ("val", val)):
        yield from (f"--{part}-annotations", f"{folder}/annotations/instances_{name}.json")
        yield from (f"--{part}-images", f"{folder}/{name}")


def test_own_files(train, read, demo_data):
    train(*_own(demo_data, "train", "val"))
    assert read == {"instances_train.json": 1, "instances_val.json": 1}
    assert [file.name for file in coco_files._kept if demo_data in file.parents] == [
        "instances_val.json"
    ], "the training file takes no memory any more"


def test_one_own_file_for_both(train, read, demo_data):
    train(*_own(demo_data, "val", "val"))
    assert read == {"instances_val.json": 1}


def test_what_else_refers_to_the_training_set(tiny_config, read):
    """As the LVIS recipes' sampler does."""
    cfg = tiny_config()
    node = cfg.dataloader.train
    node.sampler = L(RepeatFactorTrainingSampler)(
        repeat_factors=L(repeat_factors)(
            dataset_dicts="${dataloader.train.dataset}", repeat_thresh=0.001
        )
    )
    before = dict(node.dataset)
    loader, seed = build_training_data(cfg, {}, batches=0)
    assert read == {"digit_scenes_train": 1}
    assert dict(node.dataset) == before
    assert loader.order() == {
        "seed": seed,
        "processes": 1,
        "total_batch_size": 2,
        "images": 16,
    }
    assert len(next(iter(loader))) == 2
    assert loader.state_dict()["batches"] == 1


def test_a_second_evaluation_is_the_first_again(tiny_config, make_tiny_detector, read, tmp_path):
    """Though the annotations are kept, which scorers write into."""
    cfg = tiny_config(f"train.output_dir={tmp_path}", "dataloader.evaluator.tasks=[segm,bbox]")
    test_set, model = TestSet(cfg), make_tiny_detector()
    first, second = (train_module.evaluate(test_set, model) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert read == {"digit_scenes_val": 1, "truth": 1}
