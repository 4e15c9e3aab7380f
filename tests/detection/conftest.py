"""The demo config in tiny, demo data in tiny, and detectron2's programs as subprocesses."""

import copy
import functools
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from eva_detection.data import datasets

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "detection" / "configs"

# two blocks of width 32, from scratch, two images a step
TINY = (
    "train.init_checkpoint=",
    "train.progress_bar=False",
    "train.log_period=1",
    "dataloader.train.num_workers=0",
    "dataloader.train.total_batch_size=2",
    "model.backbone.net.depth=2",
    "model.backbone.net.embed_dim=32",
    "model.backbone.net.num_heads=2",
    "model.backbone.net.mlp_dim=64",
    "model.backbone.net.global_attn_indexes=[1]",
)
WARNINGS = (  # of detectron2 and its libraries
    "ignore:The given NumPy array is not writable:UserWarning",
    "ignore:__array__ implementation doesn't accept:DeprecationWarning",
    "ignore:torch.meshgrid:UserWarning",
    "ignore:Creating a tensor from a list of numpy:UserWarning",
)


def pytest_collection_modifyitems(items):
    """Pass over the libraries' warnings in the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(*WARNINGS))


# End of a program with `SCENARIOS`, each of which two processes of `worker(rank, name, port)` run.
TWO_PROCESSES = """
if __name__ == "__main__":
    import socket
    for name in SCENARIOS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.start_processes(worker, (name, port), 2, join=False, start_method="fork")
        for rank, process in enumerate(context.processes):
            process.join()
            say(name, rank, "exit", process.exitcode)
"""


@pytest.fixture(scope="session")
def in_two_processes():
    """End of a program that runs its scenarios in two processes."""
    return TWO_PROCESSES


@pytest.fixture(scope="session")
def picture():
    """(75, 100, 3); 96 x 128 in the detector."""
    return np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def repository():
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def load_config():
    """Function: `detection/configs/NAME.py`, which is run once, with overrides."""
    read = functools.cache(lambda name: LazyConfig.load(str(CONFIGS / f"{name}.py")))
    return lambda name, *more: LazyConfig.apply_overrides(copy.deepcopy(read(name)), [*more])


@pytest.fixture(scope="session")
def tiny_overrides():
    """Overrides that make the demo config tiny."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config(load_config):
    """Function: the tiny demo config with further overrides."""
    return lambda *more: load_config("demo/cascade_mask_rcnn_vitdet_eva_debug", *TINY, *more)


@pytest.fixture(scope="session")
def make_tiny_detector(tiny_config):
    """Function: the tiny demo detector."""
    return lambda *more: instantiate(tiny_config(*more).model)


@pytest.fixture(scope="session")
def demo_data(demo):
    """Folder of data sets with 16 + 6 digit scenes."""
    return demo("coco", val=6).parent


@pytest.fixture
def register_below():
    """Function: register the toolkit's data sets below another folder, for one test."""
    names = (*datasets.COCO_STYLE, *datasets.LVIS_STYLE)

    def register(root):
        for name in names:
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
        datasets.register_all(root)

    yield register
    register(datasets.dataset_root())


@pytest.fixture
def registered_demo_data(demo_data, register_below):
    """The demo data, registered in this process."""
    register_below(demo_data)
    return demo_data


@pytest.fixture
def own_logging(monkeypatch):
    """What a run sets up for the log of its process is undone after the test."""
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.fixture
def train_here(monkeypatch):
    """Function: train by a config in this process, in its folder."""
    from eva_detection.command_line import TrainingRequest
    from eva_detection.training import train as train_module

    def train(cfg, *, resume=False):
        monkeypatch.setattr(train_module, "load_config", lambda request: (cfg, None, []))
        recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
        request = TrainingRequest(recipe=recipe, resume=resume)
        detection_run = train_module.DetectionRun(request)
        detection_run.resolve()
        detection_run.train()

    return train


@pytest.fixture
def run_here(own_logging, registered_demo_data, tiny_config, monkeypatch, capfd):
    """Function: what `train_net.py` does, in this process; returns exit code or sentence."""
    from eva_detection.command_line import parse
    from eva_detection.config import files, settings
    from eva_detection.evaluation.test_set import EvaluationSet
    from eva_detection.training import train as train_module

    monkeypatch.setenv("DETECTRON2_DATASETS", str(registered_demo_data))
    for module, name in ((settings, "load_config_file"), (files, "_run_recipe")):
        monkeypatch.setattr(module, name, lambda file, **_: copy.deepcopy(tiny_config()))
    monkeypatch.setattr(EvaluationSet, "score", lambda test_set, model, **_: {})
    recipe = str(CONFIGS / "demo" / "cascade_mask_rcnn_vitdet_eva_debug.py")

    def run(folder, *words):
        flags = [word for word in words if "=" not in word]
        values = [word for word in words if "=" in word]
        arguments = ["--config-file", recipe, *flags, f"train.output_dir={folder}", *values]
        code = 0
        try:
            train_module.DetectionRun(parse(arguments)).run()
        except SystemExit as stopped:
            code = stopped.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err, out + err
        run.printed = out + err
        return err.splitlines()[-1] if code == 1 else code

    return run


@pytest.fixture
def start(programs, demo_data, tmp_path):
    """Function: start a Python program on the demo data."""
    changes = {"DETECTRON2_DATASETS": str(demo_data), "RANKS": "fork"}
    return lambda *words: programs.start(*words, folder=tmp_path, environment=os.environ | changes)


@pytest.fixture
def finish():
    """Function: wait for a started program, which must succeed; returns what it printed."""

    def wait(running, timeout=120):
        ended = running.wait(timeout)
        assert ended.code == 0, ended.text[-4000:]
        return ended.text

    return wait
