"""What `run.compile` compiles of a ViT: every block, with stochastic depth too."""

from collections import Counter

import pytest
import torch

from eva_backbone.vit import VisionTransformer
from eva_engine.steps import engine as compilation

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo
DEPTH = 4


def make_vit(**settings):
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=DEPTH, num_heads=2,
                             mlp_dim=64, **settings)  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """Counts, by operation, of what runs inside compiled graphs; the graphs are not translated."""
    counts = Counter()

    def backend(graph, inputs):
        names = [getattr(node.target, "__name__", "") for node in graph.graph.nodes]

        def run(*arguments):
            counts.update(names)
            return graph(*arguments)

        return run

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compilation, "BACKEND", backend)
    yield counts
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("rate", "checkpointing"), [(0.0, False), pytest.param(0.4, True, marks=pytest.mark.slow)]
)
def test_every_block_runs_compiled(calls, rate, checkpointing):
    """Training steps with any number of kept samples, evaluations, the same numbers as plainly."""
    settings = {"drop_path_rate": rate, "activation_checkpointing": checkpointing}
    plain, compiled = make_vit(**settings), make_vit(**settings)
    names = list(compiled.state_dict())
    parts = compilation.compile_model(compiled)
    assert parts == (2 * DEPTH - 1 if rate else DEPTH)  # the first block drops nothing
    assert list(compiled.state_dict()) == names
    for step in range(3):
        images = torch.randn(6, 3, 32, 32)
        results = []
        for model in (plain, compiled):
            calls.clear()
            torch.manual_seed(step)
            model.zero_grad()
            output = model(images)
            output.square().mean().backward()
            results.append([output, *(p.grad for p in model.parameters() if p.grad is not None)])
            if model is plain:
                assert not calls
            elif not rate:
                passes = 2 if checkpointing else 1
                assert calls["scaled_dot_product_attention"] == calls["gelu"] == DEPTH * passes
            else:
                assert calls["scaled_dot_product_attention"] >= DEPTH // 2
                assert calls["gelu"] >= DEPTH // 2
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for mode in (torch.no_grad, torch.inference_mode):
        for number in (6, 5, 1):
            calls.clear()
            with mode():
                images = torch.randn(number, 3, 32, 32)
                expected, found = plain.eval()(images), compiled.eval()(images)
            assert calls["scaled_dot_product_attention"] == calls["gelu"] == DEPTH
            torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-4)
    # a few for all steps and blocks together, and none that broke off
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 20
    assert not torch._dynamo.utils.counters["graph_break"]
