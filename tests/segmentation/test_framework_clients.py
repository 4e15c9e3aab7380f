"""mmsegmentation's own `init_model`, `inference_model`, `MMSegInferencer` and `get_flops.py`."""

import argparse
import runpy
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from eva_segmentation.model.segmentor import StreamingTTA

SIDE, WIDTH = 32, 16  # of the tiny config
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "torch.meshgrid",
        "dataset_meta or class names are not saved",
        "Failed to add <class 'mmengine.visualization",
        ".*[Tt]racer",
        ".*`torch.jit.trace` is deprecated",
        "SyncBatchNorm",
        ".*Implicitly cleaning up",  # a folder of the tool
    )
]
pytestmark.append(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture
def make_config(tiny, load_config):
    """Function: a config of each kind that a test can run."""

    def make(kind):
        if kind == "mask2former":
            return load_config("demo/mask2former_eva_debug")
        cfg = tiny()
        cfg.train_pipeline, cfg.test_pipeline = None, cfg.test_dataloader.dataset.pipeline
        if kind == "several scales":
            cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
            cfg.model = {**cfg.tta_model, "module": cfg.model}
        return cfg

    return make


@pytest.fixture(autouse=True)
def _forgotten(forget_runs):
    """An inferencer makes a visualizer under the name that runs have for theirs."""
    yield
    forget_runs()


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A file of 40 x 60 px."""
    file = tmp_path_factory.mktemp("pictures") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return str(file)


@pytest.mark.parametrize("kind", ["mask2former", "upernet", "several scales"])
def test_models_and_inferencers_predict(kind, make_config, picture, tmp_path):
    cfg = make_config(kind)
    model = init_model(cfg, device="cpu")
    segmentor = getattr(model, "module", model)
    with torch.no_grad():
        for parameter in segmentor.decode_head.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    classes = segmentor.num_classes
    expected = inference_model(model, picture).pred_sem_seg.data[0]
    assert expected.shape == (40, 60)
    again = inference_model(model, [np.asarray(Image.open(picture))[:, :, ::-1]])
    assert torch.equal(again[0].pred_sem_seg.data[0], expected), "from a file and from an array"
    torch.save({"state_dict": segmentor.state_dict()}, tmp_path / "weights.pth")  # as official
    make_config(kind).dump(tmp_path / "small.py")
    inferencer = MMSegInferencer(
        model=str(tmp_path / "small.py"), weights=str(tmp_path / "weights.pth"), device="cpu"
    )
    loaded = getattr(inferencer.model, "module", inferencer.model).state_dict()
    for part, value in segmentor.state_dict().items():
        assert torch.equal(loaded[part], value), part
    shown = inferencer(picture, return_vis=True)
    assert shown["visualization"].shape == (40, 60, 3)
    assert len(inferencer.model.dataset_meta["classes"]) == classes
    if not isinstance(model, StreamingTTA):  # which sees several sizes there
        assert np.array_equal(shown["predictions"], expected.numpy())


@pytest.fixture(scope="module")
def get_flops():
    """Function: mmsegmentation's tool on a config; returns what it would print."""
    tool = Path(mmseg.__path__[0]) / ".mim" / "tools" / "analysis_tools" / "get_flops.py"
    inference = runpy.run_path(str(tool))["inference"]

    def run(file):
        result = inference(argparse.Namespace(config=file, shape=[SIDE], cfg_options=None), None)
        number, unit = float(result["flops"][:-1]), result["flops"][-1]
        return number * {"K": 1e3, "M": 1e6, "G": 1e9}[unit]

    return run
