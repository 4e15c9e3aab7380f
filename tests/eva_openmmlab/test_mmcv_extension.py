"""The stand-in for mmcv's compiled operations, and mmcv with them (imitated)."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types

import pytest

from eva_openmmlab.stand_in import (
    ATTENTION,
    EXTENSION,
    install_stand_in,
)


@pytest.fixture
def compiled(monkeypatch):
    """A module like the one that mmcv's build makes."""
    module = types.ModuleType(EXTENSION)
    module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, loader=None)
    monkeypatch.setitem(sys.modules, EXTENSION, module)
    return module


@pytest.mark.parametrize(("version", "expected"), [("12.4", True), ("not available", False)])
def test_operations_for_cpus_alone_are_not_called_on_a_gpu(
    compiled, monkeypatch, version, expected
):
    compiled.get_compiling_cuda_version = lambda: version
    monkeypatch.setattr("mmcv.ops.info.ext_module", compiled)
    attention = types.ModuleType(ATTENTION)
    attention.IS_CUDA_AVAILABLE = True  # there is a GPU
    monkeypatch.setitem(sys.modules, ATTENTION, attention)
    assert install_stand_in() is False
    assert attention.IS_CUDA_AVAILABLE is expected
