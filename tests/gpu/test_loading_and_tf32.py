"""Pinned batches that are copied beside computation, and TF32 as the documents say."""

from types import SimpleNamespace

import pytest
import torch

from eva_runs.data_order import (
    ElasticSampler,
    Permutations,
    SeededDataset,
    build_loader,
    to_device,
)

SIZE = 1024
TF32 = [({}, "high"), ({"matmul_precision": "highest"}, "highest")]


@pytest.fixture
def batches(program):
    """Function: micro-batches of a loader, the first four."""

    def load(**options):
        order = ElasticSampler(sampler=Permutations(64, 8, seed=0), step_batch=8, micro_batch=8)
        loader = build_loader(SeededDataset(program.Points(), seed=0), order, **options)
        stream = iter(loader)
        taken = [next(stream) for _ in range(4)]
        del stream
        return taken

    return load


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_arrive(batches, gpu, only_cuda, workers):
    """They lie in memory from which a GPU copies by itself, and have the values of others."""
    plain = batches(workers=workers)
    for batch, wanted in zip(batches(workers=workers, pin_memory=True), plain, strict=True):
        assert batch.items == wanted.items
        for name, tensor in batch.data.items():
            assert tensor.is_pinned(), name
            assert not wanted.data[name].is_pinned()
        arrived = to_device(batch.data, gpu)
        torch.cuda.synchronize()
        for name, tensor in arrived.items():
            assert tensor.device.type == gpu.type
            assert torch.equal(tensor.cpu(), wanted.data[name])


def test_a_copy_does_not_wait(gpu, only_cuda):
    """A pinned batch is sent off while the GPU is still busy; from other memory the copy waits.

    By events on the GPU, not by a clock: the copy is queued before the work in front of it is done.
    """
    data = {"images": torch.randn(8, 3, 512, 512).pin_memory()}
    busy = torch.randn(4096, 4096, device=gpu)
    for _ in range(2):  # what is only done once: libraries are loaded, memory is allocated
        arrived, busy = to_device(data, gpu), (busy @ busy).clamp(-1, 1)
    torch.cuda.synchronize()
    del arrived
    for _ in range(100):
        busy = (busy @ busy).clamp(-1, 1)
    done = torch.cuda.Event()
    done.record()
    arrived = to_device(data, gpu)
    assert not done.query(), "the copy waited for 100 products of 4096 x 4096"
    torch.cuda.synchronize()
    assert torch.equal(arrived["images"].cpu(), data["images"])


# ---- TF32 ------------------------------------------------------------------------------------


@pytest.fixture
def _precision_kept():
    before = torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.benchmark = benchmark


def error_of_a_product(device):
    """Largest error of a float32 product over its largest value."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(SIZE, SIZE, generator=generator).to(device) for _ in range(2))
    exact = one.double() @ other.double()
    return ((one @ other).double() - exact).abs().max().item() / exact.abs().max().item()


def set_up(steps, **settings):
    """What the hook of a run does with a config's `env_cfg` at its start."""
    import importlib

    importlib.import_module("eva_segmentation.plugin")
    from mmengine.config import Config

    from eva_openmmlab.hooks import RunHook

    file = steps.ROOT / "segmentation/configs/_base_/runtime.py"
    cfg = Config.fromfile(file)
    cfg.env_cfg.update(settings)
    hook, run = RunHook(), dict(distributed=False, work_dir="", _train_loop=None)
    hook.claimed = True
    hook.before_run(SimpleNamespace(cfg=cfg, **run))


@pytest.mark.usefixtures("_precision_kept")
@pytest.mark.parametrize(("setting", "wanted"), TF32)
def test_segmentation_uses_tf32_unless_told_not_to(steps, gpu, setting, wanted):
    """`env_cfg.matmul_precision="high"` is TF32, as in the official runs (docs/deviations.md)."""
    set_up(steps, **setting)
    assert torch.get_float32_matmul_precision() == wanted
    error = error_of_a_product(gpu)
    if gpu.type == "cpu":
        return
    if wanted == "high" and torch.cuda.get_device_capability() >= (8, 0):
        assert 1e-5 < error < 2e-3  # 10 bits of a factor
    else:
        assert error < 5e-6
