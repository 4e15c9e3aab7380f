"""The ViT and its pyramid make every tensor where their input is."""

import pytest
import torch

from eva_backbone import attention, rel_pos, resample

CPU = torch.device("cpu")
KINDS = (
    "class token", "layer scale and checkpoints", "every sample dropped", "table",
    "windows, vitdet", "windows, beit", "windows, vitdet, checkpoints",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_matrices_of_others():
    """Cached tensors are kept by device; each test makes its own."""
    cached = (resample._beit_matrix, resample._bias_matrix)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_on_another_device(same_training, steps, kind):
    same_training(steps.vit(kind))


def test_the_pyramid(same_training, steps):
    same_training(steps.pyramid())


FORGOTTEN = {
    "windows, vitdet": ("axis_embeddings", lambda table, n, _: torch.zeros(n, n, table.shape[1])),
    "table": ("table_bias_index", lambda grid, rows, _: rel_pos.table_bias_index(grid, rows, CPU)),
}


@pytest.mark.parametrize("kind", FORGOTTEN)
def test_a_forgotten_device_is_seen(same_training, devices, steps, monkeypatch, kind):
    """What these tests are for: a tensor that is always made on the CPU."""
    monkeypatch.setattr(attention, *FORGOTTEN[kind])
    with pytest.raises(devices.TwoDevicesError):
        same_training(steps.vit(kind))
