"""The limit on memory: how it is read, what is estimated against what is measured, the chunks."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eva_backbone import rel_pos
from eva_backbone.rel_pos import attention_chunk, decomposed_attention
from eva_detection.inference.memory import (
    MemoryLimitError,
    canvas_of,
    choose_chunk,
    estimate,
    parse_bytes,
)

CANVAS = {"canvas": (512, 512), "picture": (512, 512)}


@pytest.fixture(scope="module")
def detector(make_tiny_detector):
    torch.manual_seed(0)
    return make_tiny_detector().eval()


@pytest.mark.parametrize(
    ("text", "amount"),
    [("8G", 8 * 2**30), ("1.5 gib", 3 * 2**29), ("8GB", 8 * 10**9), ("1000000", 10**6)],
)
def test_amounts(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GiB", "8 apples", "-1", "8iB", "0", "inf"])
def test_what_is_no_amount(text):
    with pytest.raises(ValueError, match="memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "canvas"), [((60, 90), (128, 128)), ((128, 129), (144, 144)), ((200, 1), (208, 208))]
)
def test_the_canvas_is_that_of_the_detector(detector, size, canvas):
    assert canvas_of(detector.backbone, *size) == canvas
    images = detector.preprocess_image([{"image": torch.zeros(3, *size)}])
    assert images.tensor.shape[-2:] == canvas


def test_the_canvas_without_a_square(make_tiny_detector):
    backbone = make_tiny_detector("model.backbone.square_pad=0").backbone
    assert canvas_of(backbone, 60, 90) == (64, 96)


def _allocated(function):
    """Bytes that a function allocates at most, beyond those from before, on the CPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize(
    "settings", [(), ("model.backbone.net.mlp_dim=1024",), ("model.backbone.net.embed_dim=128",)]
)
def test_estimates_are_on_the_safe_side_and_not_far(make_tiny_detector, settings):
    detector = make_tiny_detector(*settings).eval()
    image = torch.rand(3, 512, 512) * 255
    demand = estimate(detector, **CANVAS, fused=False)
    padded = detector.preprocess_image([{"image": image}]).tensor
    scores = 2 * 4 * min(64**4, rel_pos.CACHE_ELEMENTS * torch.get_num_threads())
    with torch.inference_mode():
        vit = _allocated(lambda: detector.backbone.net.forward_feature_map(padded))
        whole = _allocated(lambda: detector([{"image": image, "height": 512, "width": 512}]))
    assert vit < demand.vit + scores < 2.5 * vit
    assert whole < demand.peak(scores) - demand.weights < 2.5 * whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [32, 256])
def test_estimates_for_half_types_on_a_cpu(make_tiny_detector, dtype, width):
    """Attention computes in float32 there, one head at a time, as for float32."""
    detector = make_tiny_detector(f"model.backbone.net.embed_dim={width}").eval().to(dtype)
    demand = estimate(detector, **CANVAS, fused=False)
    images = torch.rand(1, 3, 512, 512, dtype=dtype)
    with torch.inference_mode():
        vit = _allocated(lambda: detector.backbone.net.forward_feature_map(images))
    cached = min(64**4, rel_pos.CACHE_ELEMENTS * torch.get_num_threads())
    assert vit < demand.vit + 2 * 4 * cached < 2.5 * vit
    usual = demand.peak(2 * 4 * cached)
    assert choose_chunk(detector, **CANVAS, limit=usual) is None
    if width == 256:  # else the heads need more
        assert 0 < choose_chunk(detector, **CANVAS, limit=usual - 1) <= cached


def test_masks_of_a_large_picture_and_many_detections_count(detector):
    small = estimate(detector, canvas=(128, 128), picture=(128, 128), fused=False)
    large = estimate(detector, canvas=(128, 128), picture=(5000, 4000), fused=False)
    assert large.heads - small.heads == 2 * 30 * (5000 * 4000 - 128 * 128)
    assert large[:3] == small[:3]


def test_no_cap_counts_as_many_detections_as_proposals(make_tiny_detector):
    last = "model.roi_heads.box_predictors.2.test_topk_per_image"
    size = {"canvas": (128, 128), "picture": (1000, 1000), "fused": False}
    uncapped = make_tiny_detector(f"{last}=-1")
    proposals = uncapped.proposal_generator.post_nms_topk[False]
    assert proposals > 30
    assert estimate(uncapped, **size) == estimate(make_tiny_detector(f"{last}={proposals}"), **size)


@pytest.fixture
def many_threads(monkeypatch):
    """Chunks that take the entire map of one head."""
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 2**26)


@pytest.mark.usefixtures("many_threads")
def test_the_chunk_fills_what_the_limit_leaves(detector):
    """64 x 64 patches, 2 heads: 128 MiB for the full map of a head, 2 MiB at least."""
    demand = estimate(detector, **CANVAS, fused=False)
    usual = demand.weights + demand.vit + 8 * 64**4
    assert choose_chunk(detector, **CANVAS, limit=usual) is None
    limits = [usual - 1, usual - 2**25, usual - 2**26]
    chunks = [choose_chunk(detector, **CANVAS, limit=limit) for limit in limits]
    for limit, chunk in zip(limits, chunks, strict=True):
        assert 0 <= limit - (demand.weights + demand.vit + 8 * chunk) < 8
    smallest = demand.peak(8 * 32 * 2 * 64**2)
    assert choose_chunk(detector, **CANVAS, limit=smallest) >= 32 * 2 * 64**2
    with pytest.raises(MemoryLimitError, match=r"512x512 px needs about \d+ MiB .*square_pad"):
        choose_chunk(detector, **CANVAS, limit=smallest - 1)


def test_an_accelerator_takes_chunks_only_under_a_tight_limit(make_tiny_detector):
    """On the meta device, which like an accelerator appends channels."""
    wide = "model.backbone.net.num_heads=16"  # 16 x 2 x 64 appended channels
    with torch.device("meta"):
        detector = make_tiny_detector(wide)
    fused = estimate(detector, **CANVAS, fused=True)
    chunked = estimate(detector, **CANVAS, fused=False)
    assert fused.vit > 2 * chunked.vit
    assert choose_chunk(detector, **CANVAS, limit=fused.peak()) is None
    chunk = choose_chunk(detector, **CANVAS, limit=fused.peak() - 1)
    assert 0 < chunk <= rel_pos.CHUNK_ELEMENTS


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
