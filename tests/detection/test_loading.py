"""The data of a run is built once, annotations are parsed once; an evaluation's workers end."""

import contextlib
import json
import os
import signal
from collections import Counter

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import DataLoader, Dataset

from eva_data.detection import coco
from eva_detection.command_line import parse
from eva_detection.config.own_data import apply_custom_data
from eva_detection.data.loading import (
    EvaluationLoader,
    TestSet,
    build_training_loader,
    choose_seed,
    read_training_set,
)
from eva_detection.data.lvis import repeat_factors
from eva_detection.evaluation import evaluators
from eva_detection.training import train as train_module
from eva_runs.interruption import StopSignal

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
    load, score = coco.load_json, evaluators.read_annotations
    monkeypatch.setattr(coco, "load_json", lambda file: counted(file.name, load)(file))
    monkeypatch.setattr(evaluators, "read_annotations", counted("truth", score))
    return found


@pytest.fixture
def train(tiny_config, tmp_path):
    """Function: train and evaluate in this process, with own data if there is any."""

    def run(*flags, **more):
        (tmp_path / "run").mkdir()
        cfg = tiny_config(f"train.output_dir={tmp_path / 'run'}", *TWO_EVALUATIONS)
        args = parse([*flags, "--config-file", "unused"])
        apply_custom_data(cfg, args)
        test_set = TestSet(cfg, getattr(args, "resolved", None))
        train_module.train(cfg, resume=False, test_set=test_set, **more)
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
    assert read == {"instances_train.json": 1, "instances_val.json": 2}  # by the evaluator too


def test_one_own_file_for_both(train, read, demo_data):
    train(*_own(demo_data, "val", "val"))
    assert read == {"instances_val.json": 3}


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
    seed = choose_seed(cfg, {})
    dataset = read_training_set(TestSet(cfg), seed)
    loader = build_training_loader(cfg, dataset, {}, seed=seed, batches=0)
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


def test_a_built_trainer_only_has_to_be_run(tiny_config, registered_demo_data, tmp_path):
    """Its loader, hooks, seed and place in the data are there, also of a run that continues."""
    words = (f"train.output_dir={tmp_path}", "train.seed=7", "train.accumulate=2")

    def build(steps, *, resume):
        cfg = tiny_config(*words, f"train.max_iter={steps}")
        cfg.dataloader.pop("evaluator")
        return train_module.build_trainer(
            cfg, resume=resume, stop=StopSignal(), ends=ends, test_set=TestSet(cfg)
        )

    with contextlib.ExitStack() as ends:
        trainer = build(2, resume=False)
        assert (trainer.iter, trainer.seed, trainer.data_loader.batches) == (-1, 7, 0)
        trainer.train(0, 2)
        weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        again = build(3, resume=True)
        assert (again.iter, again.seed, again.data_loader.batches) == (1, 7, 4)
        assert len(again._hooks) == len(trainer._hooks) > 4
        for name, value in again.model.state_dict().items():
            assert value.equal(weights[name]), name
        again.train(again.iter + 1, 3)
    assert again.data_loader.batches == 6


class Handlers(Dataset):
    """What a worker does with the signals that end a run."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        return [signal.getsignal(number) == signal.SIG_IGN for number in numbers], os.getpid()


def test_workers_leave_signals_to_the_run_and_end():
    loader = EvaluationLoader(DataLoader(Handlers(), num_workers=1, collate_fn=list))
    assert len(loader) == 4
    batches = iter(loader)
    ((ignored, worker),) = next(batches)
    assert ignored == [True, True, True]
    loader.close()  # with batches still to come
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    loader.close()


def test_other_loaders_are_used_as_they_are():
    loader = EvaluationLoader([1, 2])
    assert list(loader) == [1, 2]
    loader.close()
