"""Attention with relative positions, against a dense reference, and how much memory it takes."""

import gc
from functools import partial

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from eva_backbone import rel_pos
from eva_backbone.attention import TableRelPosAttention
from eva_backbone.rel_pos import (
    decomposed_attention,
    table_attention,
    table_bias_index,
)

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def _inputs(height, width, *, batch=2, heads=3, dim=8, dtype=torch.float32):
    tokens = height * width
    shapes = [(batch, heads, tokens, dim)] * 3 + [(height, height, dim), (width, width, dim)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def _dense(q, k, v, rel_h, rel_w):
    """ViTDet's formula with the complete map: (q k' / sqrt(d) + q (R_h + R_w)) -> softmax -> v."""
    pairs = rel_h[:, None, :, None] + rel_w[None, :, None, :]  # (H, W, H, W, D)
    pairs = pairs.flatten(2, 3).flatten(0, 1)  # (N, N, D)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores + torch.einsum("bhnd,nmd->bhnm", q, pairs)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("grid", [(7, 9), (5, 5), (2, 20)])
@pytest.mark.parametrize("elements", [1, 2000])  # the smallest chunks: 32 queries; complete windows
def test_both_ways_equal_the_dense_map(monkeypatch, dtype, chunked, grid, elements):
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", elements)
    inputs = _inputs(*grid, dtype=dtype, batch=5)
    weights = torch.randn_like(inputs[0])
    actual = decomposed_attention(*inputs, chunked=chunked)
    expected = _dense(*inputs)
    tolerance = {"atol": TOLERANCES[dtype], "rtol": TOLERANCES[dtype]}
    torch.testing.assert_close(actual, expected, **tolerance)
    mine = torch.autograd.grad((actual * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for name, a, e in zip(("q", "k", "v", "rel_h", "rel_w"), mine, theirs, strict=True):
        scale = e.abs().max()
        assert scale > 1e-3
        torch.testing.assert_close(
            a / scale, e / scale, **tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def _relative_error(actual, expected):
    return ((actual.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [(torch.bfloat16, False, 6e-3), (torch.bfloat16, True, 6e-3), (torch.float16, False, 8e-4)],
)
def test_half_precision(monkeypatch, chunked, dtype, autocast, tolerance):
    """Values and gradients; with scores large enough for their rounding to matter."""
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 2000)
    inputs = [tensor.detach() for tensor in _inputs(15, 9, dim=88)]
    half = [tensor.to(dtype).requires_grad_() for tensor in inputs[:3]]
    half += [(0.1 * tensor).requires_grad_() for tensor in inputs[3:]]  # float32, as in training
    full = [tensor.detach().float().requires_grad_() for tensor in half]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = decomposed_attention(*half, chunked=chunked)
    assert actual.dtype == dtype
    expected = _dense(*full)
    weights = torch.randn_like(expected).to(dtype)
    mine = torch.autograd.grad((actual * weights).float().sum(), half)
    theirs = torch.autograd.grad((expected * weights.float()).sum(), full)
    errors = [
        _relative_error(*pair) for pair in zip((actual, *mine), (expected, *theirs), strict=True)
    ]
    assert max(errors) < tolerance


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 6e-3), (torch.float16, 8e-4)],
)
@pytest.mark.parametrize("elements", [1, 2**16])  # chunks of 32 queries; several images
def test_the_table_equals_the_dense_map(monkeypatch, dtype, tolerance, elements):
    """Values and gradients; in half precision the softmax is in float32."""
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", elements)
    grid, heads, tokens = (7, 9), 3, 64
    q, k, v = (torch.randn(5, heads, tokens, 88, dtype=dtype) for _ in range(3))
    table = torch.randn(13 * 17 + 3, heads, dtype=torch.promote_types(dtype, torch.float32))
    inputs = [tensor.requires_grad_() for tensor in (q, k, v, table)]
    wide = table.dtype
    full = [tensor.detach().to(wide).requires_grad_() for tensor in inputs]
    index = table_bias_index(grid, slice(0, tokens), q.device)
    scores = full[0] @ full[1].mT / 88**0.5 + full[3][index].permute(2, 0, 1)
    expected = scores.softmax(-1) @ full[2]
    actual = table_attention(*inputs, grid)
    assert actual.dtype == dtype
    weights = torch.randn_like(expected).to(dtype)
    mine = torch.autograd.grad((actual * weights).to(wide).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights.to(wide)).sum(), full)
    for a, e in zip((actual, *mine), (expected, *theirs), strict=True):
        assert (a.to(wide) - e).norm() / e.norm() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_gets_the_table_as_its_fused_kernels_ask(monkeypatch, dtype):
    """Away from CPUs they want a mask whose last dimension is contiguous."""
    masks, plain = [], rel_pos.F.scaled_dot_product_attention

    def attention(q, k, v, attn_mask):
        masks.append(attn_mask)
        return plain(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(rel_pos.F, "scaled_dot_product_attention", attention)
    q, k, v = (torch.empty(2, 4, 13, 8, device="meta", dtype=dtype) for _ in range(3))
    table_attention(q, k, v, torch.empty(5 * 7 + 3, 4, device="meta"), (3, 4))
    assert [mask.stride(-1) for mask in masks] == [1]


@pytest.fixture
def rules_of_cuda(monkeypatch):
    """PyTorch's rules for an H100, as its `sdp_utils.cpp` has them; the widths of each call."""
    calls = []

    def widths(params):
        return [tensor.shape[-1] for tensor in (params.query, params.key, params.value)]

    def flash(params):
        half = params.query.dtype in (torch.float16, torch.bfloat16)
        return half and len({*widths(params)}) == 1 and widths(params)[0] <= 256

    def efficient(params):
        query, key, value = widths(params)
        alignment = 16 // params.query.dtype.itemsize
        return query == key and query % alignment == 0 and value % alignment == 0

    def attention(q, k, v, **options):
        calls.append((q.shape, v.shape))
        return torch.empty(*q.shape[:-1], v.shape[-1], device="cpu")  # fake GPUs cannot index

    monkeypatch.setattr(torch.backends.cuda, "can_use_flash_attention", flash)
    monkeypatch.setattr(torch.backends.cuda, "can_use_efficient_attention", efficient)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    return calls


@pytest.mark.parametrize(
    ("side", "dim", "dtype", "width"),
    [
        (16, 88, torch.bfloat16, 120),  # a window: FlashAttention
        (80, 88, torch.float16, 248),  # 1280 px: FlashAttention
        (96, 88, torch.bfloat16, 88),  # 1536 px: 280 are too many for it
        (128, 88, torch.float16, 88),
        (16, 88, torch.float32, 88),  # which it never takes
        (96, 20, torch.float32, 24),
    ],
)
def test_values_are_as_wide_as_the_fastest_kernel_needs(rules_of_cuda, side, dim, dtype, width):
    with FakeTensorMode():
        q, k, v = (torch.zeros(1, 16, side**2, dim, dtype=dtype, device="cuda") for _ in range(3))
        rel = torch.zeros(side, side, dim, dtype=dtype, device="cuda")
        assert decomposed_attention(q, k, v, rel, rel).shape == q.shape
    ((queries, values),) = rules_of_cuda
    assert values[-1] == width
    if (side, dim) == (96, 88):  # 1.52e12 with wide values
        assert 2 * 16 * side**4 * (queries[-1] + values[-1]) < 1.01e12


def test_an_exported_graph_does_not_grow_with_the_map():
    class Attend(torch.nn.Module):
        def forward(self, *inputs):
            return decomposed_attention(*inputs)

    counts = []
    for side in (6, 40):
        inputs = tuple(tensor.detach() for tensor in _inputs(side, side, batch=1, heads=1))
        exported = torch.export.export(Attend(), inputs, strict=False)
        torch.testing.assert_close(
            exported.module()(*inputs), decomposed_attention(*inputs), atol=1e-5, rtol=1e-5
        )
        counts.append(len(exported.graph.nodes))
    assert counts[0] == counts[1]


# Memory


class _LargestOutput(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else (result,)
        for value in results:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def _run(attention, *inputs):
    """Forward and backward: the largest tensor in elements, and the saved ones in bytes."""
    saved = {}

    def remember(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _LargestOutput() as largest:
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            out = attention(*inputs)
        out.sum().backward()
    return largest.elements, sum(saved.values())


@pytest.mark.parametrize("chunked", [False, True])
def test_no_map_of_a_global_block_is_ever_held(monkeypatch, chunked):
    """40 x 48 patches: forward and backward stay far below heads x N x N."""
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 2**18)
    dense_map = 4 * 1920**2  # elements
    inputs = _inputs(40, 48, batch=1, heads=4)
    elements, saved = _run(partial(decomposed_attention, chunked=chunked), *inputs)
    assert elements < dense_map / 8
    assert saved < dense_map * 4 / 4  # float32


def test_a_small_map_of_beits_table_is_not_saved():
    """At 512 px and less a segmentor's step saved several maps in each block."""
    module = TableRelPosAttention(64, num_heads=8, qkv_bias="qv", window=22)
    x = torch.randn(2, 1 + 22 * 22, 64, requires_grad=True)
    _, saved = _run(module, x, (22, 22))
    assert saved < 2 * 8 * 485**2 * 4 / 4


@pytest.mark.parametrize("cached", [True, False])
def test_no_map_of_beits_table_is_ever_held(monkeypatch, cached):
    """Nor the N x N index, which took 680 MB at 1536 px for ever; a small one is kept."""
    if not cached:  # as on accelerators
        monkeypatch.setattr(rel_pos, "is_recorded", lambda: True)
    monkeypatch.setattr(rel_pos, "CHUNK_ELEMENTS", 2**18)
    monkeypatch.setattr(rel_pos, "CACHE_ELEMENTS", 2**16 // torch.get_num_threads())
    monkeypatch.setattr(rel_pos, "KEPT_INDEX", 576**2)
    module = TableRelPosAttention(64, num_heads=8, qkv_bias="qv", window=24)
    x = torch.randn(1, 1 + 24 * 24, 64, requires_grad=True)
    elements, saved = _run(module, x, (24, 24))
    assert elements <= 2**18 < 577**2
    assert saved < 8 * 577**2 * 4 / 4
    tensors = [value for value in gc.get_objects() if type(value) is torch.Tensor]
    assert not [t for t in tensors if t.dtype == torch.int64 and t.shape[-1:] == (577,)]


# Lookups


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
@pytest.mark.parametrize("kept", [0, 10**6])
def test_bias_index_against_beit(monkeypatch, grid, kept):
    monkeypatch.setattr(rel_pos, "KEPT_INDEX", kept)
    height, width = grid
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    coords = torch.stack([y.flatten(), x.flatten()])
    relative = coords[:, :, None] - coords[:, None, :]  # (2, N, N)
    relative[0] = (relative[0] + height - 1) * (2 * width - 1)
    relative[1] += width - 1
    rows = (2 * height - 1) * (2 * width - 1) + 3
    expected = torch.zeros(height * width + 1, height * width + 1, dtype=torch.int64)
    expected[1:, 1:] = relative.sum(0)
    expected[0, :] = rows - 3
    expected[:, 0] = rows - 2
    expected[0, 0] = rows - 1
    for start, stop in (
        (0, len(expected)),
        (0, 1),
        (0, 5),
        (1, 2),
        (3, 11),
        (len(expected) - 1,) * 2,
    ):
        rows = slice(start, stop)
        assert torch.equal(table_bias_index(grid, rows, torch.device("cpu")), expected[rows])
