"""Tests that need a GPU: `make test-gpu`. Without one they skip; `make test` leaves them out.

The functions of the test files take the device from the fixture `gpu`, which `--gpu-device cpu`
replaces: what does not depend on a kernel can then be tried out on a CPU. Modules with
`RUNS_ON_A_CPU` are of no GPU's kernels at all, and part of `make test` where there is none.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
FIGURES: list[str] = []  # lines for the end of the report
RUNS_ON_A_CPU = "RUNS_ON_A_CPU"


def pytest_addoption(parser):
    text = "try the tests of tests/gpu out on another device, such as cpu"
    parser.addoption("--gpu-device", default="cuda", help=text)


def pytest_report_header(config):
    if not torch.cuda.is_available():
        return "GPU: none; what needs one is skipped"
    lines = [f"GPU: {_describe(index)}" for index in range(torch.cuda.device_count())]
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return [*lines, f"torch {torch.__version__}, {versions}"]


def _device(config):
    return config.getoption("--gpu-device", "cuda")  # unknown where all of tests/ is collected


def _describe(index):
    properties = torch.cuda.get_device_properties(index)
    memory = properties.total_memory / 2**30
    return (
        f"{properties.name}, {memory:.0f} GiB, compute capability "
        f"{properties.major}.{properties.minor}"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Everything in this folder has the marker `gpu`, and is skipped without a GPU."""
    here = [item for item in items if HERE in item.path.parents]
    missing = _device(config) == "cuda" and not torch.cuda.is_available()
    for item in here:
        if missing and getattr(item.module, RUNS_ON_A_CPU, False):
            continue
        item.add_marker(pytest.mark.gpu)
        # which warnings libraries have depends on card and driver: shown, but no errors
        item.add_marker(pytest.mark.filterwarnings("default"))
        if missing:
            item.add_marker(pytest.mark.skip(reason="needs a GPU (make test-gpu)"))


def pytest_terminal_summary(terminalreporter):
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture
def report(record_property):
    """Function: add a line to the end of the report; for figures that no test asserts."""

    def add(line):
        FIGURES.append(line)
        record_property("figure", line)

    return add


@pytest.fixture(scope="session")
def gpu(request):
    """The device."""
    name = _device(request.config)
    return torch.device(name if name != "cuda" or torch.cuda.is_available() else "cpu")


@pytest.fixture
def only_cuda(gpu):
    """For tests of what a CPU does not have at all."""
    if gpu.type != "cuda":
        pytest.skip("has no meaning on a CPU")


@pytest.fixture(scope="session")
def picture():
    """Function: coarse noise, (height, width, 3) uint8."""

    def draw(height=72, width=96):
        generator = np.random.default_rng(0)
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        return coarse.repeat(8, 0).repeat(8, 1)

    return draw


@pytest.fixture(scope="session")
def assert_same_gradients():
    """Function: the gradients of two models are equal, within a share of the largest of all."""

    def check(model, reference, *, tolerance=1e-3):
        other, expected = (
            {name: p.grad.cpu() for name, p in one.named_parameters() if p.grad is not None}
            for one in (model, reference)
        )
        atol = tolerance * max(gradient.abs().max() for gradient in expected.values()).item()
        assert atol > 0
        assert other.keys() == expected.keys()
        for name, gradient in other.items():
            torch.testing.assert_close(gradient, expected[name], atol=atol, rtol=1e-2, msg=name)

    return check


@pytest.fixture(autouse=True)
def _clean(request, monkeypatch):
    """Peaks of one test do not count for the next, nor does the engine's group of processes."""
    if "process_group" not in request.fixturenames:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@pytest.fixture
def exact():
    """Float32 convolutions without TF32, which cuDNN uses unless that is turned off."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def program(load_module):
    """The module `engine_program.py`."""
    return load_module(HERE / "engine_program.py")


@pytest.fixture(scope="module")
def process_group(gpu, request):
    """A process group of one on the device, NCCL on a GPU; DeepSpeed bears only one."""
    return request.getfixturevalue("device" if gpu.type == "cpu" else "_nccl")


@pytest.fixture(scope="session")
def _nccl(gpu):
    from eva_engine import distributed

    before = dict(os.environ)
    place = distributed.start(gpu.type)
    yield place
    distributed.stop()
    os.environ.clear()
    os.environ.update(before)
