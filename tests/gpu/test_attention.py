"""Attention at EVA-g's shapes: which fused kernel serves, how exact it is, what it takes.

EVA-g's detectors attend in windows of 16 patches and, in every fourth block, over the complete map
of 64, 80, 96 or 128 patches a side. Relative positions are channels that are appended to the 88 of
a head. A map of all scores in float32 would be 5.4 GB for one block at 1536 px.

Shapes: B windows, h heads, N = grid * grid tokens, D channels of a head.
"""

import time

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from eva_backbone.attention import DecomposedRelPosAttention, TableRelPosAttention
from eva_backbone.rel_pos import axis_embeddings, decomposed_attention, table_bias_index

DIM, HEADS, WINDOW, PATCH = 1408, 16, 16, 16
WIDTH = DIM // HEADS
PIXELS = (1024, 1280, 1536, 2048)
FUSED = (
    SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION,
)  # fmt: skip
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
FLASH_WIDTH = 256  # the widest head of FlashAttention, in half precision alone
# largest error over the largest value, of the result and of the gradients (docs/numerics.md)
GRADIENTS = {"fp16": 1e-2, "bf16": 5e-2, "fp32": 1e-3}  # norm of the error over the norm
TOLERANCES = {"fp16": (4e-3, 2e-2), "bf16": (3e-2, 1e-1), "fp32": (2e-4, 2e-3)}


def make_inputs(shape, *, device, dtype, grid, heads=HEADS, width=WIDTH):
    """Queries, keys, values (B, h, N, D) and tables (2 * grid - 1, D) that need gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size, std=1.0):
        drawn = torch.randn(*size, generator=generator) * std
        return drawn.to(device, dtype).requires_grad_()

    tokens = [draw(shape, heads, grid * grid, width) for _ in range(3)]
    return [*tokens, *(draw(2 * grid - 1, width, std=0.1) for _ in range(2))]


def attend(inputs, grid):
    """What the module computes on an accelerator."""
    q, k, v, *tables = inputs
    rel_h, rel_w = (axis_embeddings(table, grid, "vitdet") for table in tables)
    return decomposed_attention(q, k, v, rel_h, rel_w, chunked=False)


def reference(inputs, grid, weight, *, queries=256):
    """Result and gradients from the definition in float64, some queries at a time."""
    q, k, v, *tables = (x.detach().double().requires_grad_() for x in inputs)
    rel_h, rel_w = (axis_embeddings(table, grid, "vitdet").detach() for table in tables)
    rel_h, rel_w = rel_h.requires_grad_(), rel_w.requires_grad_()
    parts = []
    for start in range(0, grid * grid, queries):
        rows = torch.arange(start, min(start + queries, grid * grid), device=q.device)
        here = q[:, :, rows]  # (B, h, c, D)
        bias_h = torch.einsum("bhcd,ckd->bhck", here, rel_h[rows // grid])
        bias_w = torch.einsum("bhcd,ckd->bhck", here, rel_w[rows % grid])
        scores = here @ k.mT * q.shape[-1] ** -0.5
        scores = scores + (bias_h[..., None] + bias_w[..., None, :]).flatten(-2)
        part = scores.softmax(-1) @ v
        (part * weight[:, :, rows].double()).sum().backward()
        parts.append(part.detach())
    ends = [axis_embeddings(table, grid, "vitdet") for table in tables]
    torch.autograd.backward(ends, [rel_h.grad, rel_w.grad])
    return torch.cat(parts, 2), [x.grad for x in (q, k, v, *tables)]


def errors(inputs, grid):
    """Largest error of the result and of the gradients, each over the largest value."""
    weight = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    weight = weight.to(inputs[0].device, inputs[0].dtype)
    wanted, wanted_gradients = reference(inputs, grid, weight)
    out = attend(inputs, grid)
    gradients = torch.autograd.grad(out, inputs, weight)

    def relative(found, expected):
        return ((found.double() - expected).abs().max() / expected.abs().max()).item()

    backward = max(map(relative, gradients, wanted_gradients))
    return relative(out.detach(), wanted), backward


def shape_of(pixels, block):
    """Batch and side of the map that one image's block attends over."""
    grid = pixels // PATCH
    return (1, grid) if block == "global" else ((grid // WINDOW) ** 2, WINDOW)


def serves(kernel, inputs, grid):
    """Whether a kernel alone can do forward and backward pass."""
    try:
        with sdpa_kernel([kernel]):
            attend(inputs, grid).sum().backward()
    except RuntimeError as error:
        # cuDNN finds out late what it cannot do, in words of its own
        if kernel is not SDPBackend.CUDNN_ATTENTION and "No available kernel" not in str(error):
            raise
        return False
    return True


def required(kernel, dtype, width):
    """Whether a kernel must serve: the efficient one always; flash on GPUs of data centres."""
    if kernel is SDPBackend.EFFICIENT_ATTENTION:
        return True
    data_centre = torch.cuda.get_device_capability() in ((8, 0), (9, 0), (10, 0))
    flash = kernel is SDPBackend.FLASH_ATTENTION
    return flash and data_centre and dtype != "fp32" and width <= FLASH_WIDTH


def timed(function):
    """Milliseconds of a second call."""
    function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


@pytest.mark.filterwarnings("ignore")  # PyTorch says why a kernel does not serve
@pytest.mark.parametrize("kernel", FUSED, ids=lambda kernel: kernel.name.split("_")[0].lower())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", ["global", "window"])
@pytest.mark.parametrize("pixels", PIXELS)
def test_a_fused_kernel_by_itself(gpu, only_cuda, report, pixels, block, dtype, kernel):
    """Skipped where a kernel does not serve and need not; the skips show which serve."""
    batch, grid = shape_of(pixels, block)
    inputs = make_inputs(batch, device=gpu, dtype=DTYPES[dtype], grid=grid)
    width = WIDTH + 2 * grid
    where = f"{pixels} px, {block}, head width {width}, {dtype}, {kernel.name}"
    if not serves(kernel, inputs, grid):
        assert not required(kernel, dtype, width), f"{where}: does not serve"
        report(f"{where}: does not serve")
        pytest.skip(f"{kernel.name} does not serve a head width of {width} in {dtype}")
    with sdpa_kernel([kernel]):
        forward, backward = errors(inputs, grid)
        for value in inputs:
            value.grad = None
        duration = timed(lambda: attend(inputs, grid).sum().backward())
    # two products forward and five backward, of N x N scores with the relative positions, or values
    tokens = grid * grid
    flops = batch * HEADS * 2 * tokens * tokens * (4 * width + 3 * WIDTH)
    speed = f"{duration:.1f} ms, {flops / duration / 1e9:.0f} TFLOP/s"
    report(f"{where}: {speed}, error {forward:.1e}, of the gradients {backward:.1e}")
    assert forward < TOLERANCES[dtype][0]
    assert backward < TOLERANCES[dtype][1]


@pytest.fixture
def choices(monkeypatch):
    """The kernels that PyTorch chooses by itself, in a list."""
    chosen, plain = [], F.scaled_dot_product_attention

    def attention(query, key, value, **options):
        chosen.append(SDPBackend(torch._fused_sdp_choice(query, key, value, **options)))
        return plain(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    return chosen


def run_module(module, tokens, grid, dtype):
    """One step of a module as training does it: float32 weights, autocast for half precision."""
    enabled = dtype != torch.float32
    with torch.autocast(tokens.device.type, dtype if enabled else None, enabled=enabled):
        out = module(tokens, grid)
    # a mean over so many values would have gradients that float16 rounds to zero
    generator = torch.Generator().manual_seed(1)
    out.float().backward(torch.randn(out.shape, generator=generator).to(out.device))
    return out


def peak_over(function):
    """Bytes that a call holds at most beyond what is there."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", PIXELS)
def test_the_plain_kernel_is_not_chosen(gpu, only_cuda, choices, report, pixels, dtype):
    """Of itself PyTorch takes a fused kernel, and memory is not that of a map of scores.

    One map of scores has h * N * N values; the plain kernel holds two in the forward pass and more
    with the backward pass.
    """
    batch, grid = shape_of(pixels, "global")
    inputs = make_inputs(batch, device=gpu, dtype=DTYPES[dtype], grid=grid)
    one_map = HEADS * grid**4 * inputs[0].element_size()
    with torch.no_grad():
        forward = peak_over(lambda: attend(inputs, grid))
    both = peak_over(lambda: attend(inputs, grid).sum().backward())
    taken = {kernel.name for kernel in choices}
    shares = f"{forward / one_map:.2f} forward, {both / one_map:.2f} with backward"
    report(f"{pixels} px, {dtype}: {', '.join(taken)}, memory {shares} of a map of scores")
    assert choices
    assert SDPBackend.MATH not in choices
    assert forward < 0.7 * one_map
    assert both < 1.3 * one_map


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", ["global", "window"])
def test_the_module_of_a_detector(gpu, choices, dtype, block):
    """EVA-g's attention at 1280 px with its projections, as detectors train it."""
    batch, grid = shape_of(1280, block) if gpu.type == "cuda" else (2, 4)
    module = DecomposedRelPosAttention(
        DIM, num_heads=HEADS, qkv_bias="qv", size=(grid, grid), interpolation="vitdet"
    ).to(gpu)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    tokens = torch.randn(batch, grid * grid, DIM, device=gpu)
    out = run_module(module, tokens, (grid, grid), DTYPES[dtype])
    assert out.dtype == DTYPES[dtype]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    if gpu.type == "cuda":
        assert choices
        assert SDPBackend.MATH not in choices


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bias_table_of_a_segmentor(gpu, choices, report, dtype):
    """BEiT's table at 896 px: a mask for each chunk of queries, and its gradients."""
    side, dim, heads = (56, DIM, HEADS) if gpu.type == "cuda" else (4, 32, 2)
    module = TableRelPosAttention(dim, num_heads=heads, qkv_bias="qv", window=side).to(gpu)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    tokens = torch.randn(1, 1 + side * side, dim, device=gpu)
    out = run_module(module, tokens, (side, side), DTYPES[dtype])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    if gpu.type == "cuda":
        assert choices
        assert SDPBackend.MATH not in choices
    exact = TableRelPosAttention(dim, num_heads=heads, qkv_bias="qv", window=side)
    exact.load_state_dict(module.state_dict())
    exact.to(gpu, torch.float64)  # all scores at once
    index = table_bias_index((side, side), slice(0, 1 + side * side), gpu)
    bias = exact.relative_position_bias_table[index].permute(2, 0, 1)[None]
    exact.attend = lambda q, k, v, grid: (q @ k.mT * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v
    expected = run_module(exact, tokens.double(), (side, side), torch.float32)
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[dtype][1]  # with the rounding of two projections
    for (name, value), reference in zip(module.named_parameters(), exact.parameters(), strict=True):
        gradient, exact_gradient = value.grad.double(), reference.grad
        error = (gradient - exact_gradient).norm() / exact_gradient.norm()
        report(f"{name}, {dtype}: relative error of the gradient {error:.1e}")
        assert error < GRADIENTS[dtype], name
