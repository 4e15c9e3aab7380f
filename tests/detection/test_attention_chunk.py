"""Attention in chunks, for whoever wants to limit its memory: the results stay."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eva_backbone import rel_pos
from eva_backbone.rel_pos import attention_chunk, decomposed_attention


@pytest.fixture(scope="module")
def detector(make_tiny_detector):
    torch.manual_seed(0)
    return make_tiny_detector().eval()


@pytest.fixture
def many_threads(monkeypatch):
    """Chunks that take the entire map of one head."""
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 2**26)


class _Scores(TorchDispatchMode):
    """Notes the largest map that softmax sees, and the calls of fused attention."""

    largest = calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "softmax" in str(func):
            self.largest = max(self.largest, out.numel())
        self.calls += "scaled_dot_product" in str(func)
        return out


@pytest.mark.usefixtures("many_threads")
def test_results_do_not_depend_on_the_chunk(detector):
    images = torch.randn(1, 3, 512, 512)
    with torch.inference_mode():
        with _Scores() as scores:
            expected = detector.backbone(images)["p2"]
        with _Scores() as fewer, attention_chunk(2**18):
            found = detector.backbone(images)["p2"]
        with _Scores() as again:
            detector.backbone(images)
    assert (scores.largest, fewer.largest, again.largest) == (64**4, 2**18, 64**4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_limit_replaces_appended_channels(monkeypatch):
    """A small map as on an accelerator, which has no chunks in the cache of a CPU."""
    monkeypatch.setattr(rel_pos, "_CACHED", {})
    q, k, v = torch.randn(3, 1, 2, 256, 16).bfloat16().unbind()
    tables = (0.1 * torch.randn(2, 16, 16, 16)).unbind()
    with _Scores() as usual:
        expected = decomposed_attention(q, k, v, *tables)
    with _Scores() as limited, attention_chunk(1):
        found = decomposed_attention(q, k, v, *tables)
    assert (usual.calls, limited.calls) == (1, 256 // rel_pos.SMALLEST_CHUNK)
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=0.05)


def test_a_chunk_is_positive_and_forgotten_after_an_error(detector):
    with pytest.raises(ValueError, match="positive number of scores, got 0"), attention_chunk(0):
        pass
    with pytest.raises(KeyError), attention_chunk(5):
        raise KeyError
    assert rel_pos._chunk_limit.get() is None
