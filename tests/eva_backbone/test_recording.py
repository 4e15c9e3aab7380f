"""Traces of the ViT: they hold for other sizes, or fail there, and never hold operations of one."""

import pytest
import torch
from torch import nn

from eva_backbone.recording import quiet
from eva_backbone.resample import _beit_matrix, _bias_matrix
from eva_backbone.vit import VisionTransformer

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]
DENSE = {"extra_tokens": (), "final_norm": False}
WINDOWS = DENSE | {"window_size": 3, "global_attn_indexes": (1,)}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(autouse=True)
def _empty_caches():
    """Matrices are made inside the trace, as in a new process."""
    _beit_matrix.cache_clear()
    _bias_matrix.cache_clear()


class _Map(nn.Module):
    def __init__(self, vit):
        super().__init__()
        self.vit = vit

    def forward(self, images):
        return self.vit.forward_feature_map(images)


def _traced(model, size):
    with torch.no_grad():
        dtype = model.patch_embed.proj.weight.dtype
        return torch.jit.trace(_Map(model), torch.randn(1, 3, *size, dtype=dtype))


@pytest.mark.parametrize(
    ("settings", "any_size"),
    [
        ({}, True),
        (DENSE | {"rel_pos": "vitdet"}, True),
        (WINDOWS, True),
        (WINDOWS | {"rel_pos": "vitdet"}, True),
        (DENSE | {"rel_pos": "beit"}, False),
        (WINDOWS | {"rel_pos": "beit"}, False),
        ({"rel_pos": "table"}, False),
    ],
)
@pytest.mark.parametrize("size", [(40, 32), pytest.param((64, 64), marks=pytest.mark.slow)])
@torch.no_grad()
def test_every_form_of_attention(settings, any_size, size, make_vit, tmp_path):
    sides = {"img_size": 40, "patch_size": 8, "pretrain_img_size": 32}
    # in double precision: in single, other kernels of a program may round otherwise
    model = make_vit(**sides | settings).double()
    assert isinstance(model, VisionTransformer)
    torch.jit.save(_traced(model, size), tmp_path / "vit.ts")
    program = torch.jit.load(tmp_path / "vit.ts")
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(program(images), model.forward_feature_map(images), **TOLERANCE)
    others = [(size[1] + 8, size[0]), (48, 24), (24, 48), (72, 80), (size[1], size[0])]
    for other in [other for other in others if other != size]:
        images = torch.randn(1, 3, *other, dtype=torch.float64)
        if any_size:
            expected = model.forward_feature_map(images)
            torch.testing.assert_close(program(images), expected, **TOLERANCE)
        else:
            with pytest.raises(RuntimeError, match="expanded size of the tensor"):
                program(images)


def test_a_trace_holds_no_linear_system(make_vit):
    """The matrix of the interpolation is a constant, which the trace's own check wants too."""
    model = make_vit(**DENSE, img_size=40, patch_size=8, rel_pos="beit")
    operations = {node.kind() for node in _traced(model, (64, 48)).inlined_graph.nodes()}
    assert "aten::scaled_dot_product_attention" in operations
    assert not operations & {"aten::linalg_solve", "aten::searchsorted", "aten::index_put_"}


@pytest.mark.parametrize("settings", [WINDOWS | {"rel_pos": "vitdet"}, {"window_size": 3}])
@torch.no_grad()
def test_onnx_holds_for_other_batches_and_sizes(settings, make_vit, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    sides = {"img_size": 40, "patch_size": 8, "pretrain_img_size": 32}
    model = make_vit(**sides | settings).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    names = {"input_names": ["images"], "output_names": ["map"]}
    axes = {"images": [0, 2, 3], "map": [0, 2, 3]}
    with quiet():
        torch.onnx.export(
            _Map(model),
            (torch.randn(2, 3, 40, 40),),
            str(tmp_path / "vit.onnx"),
            dynamo=False,
            opset_version=17,
            dynamic_axes=axes,
            **names,
        )
    session = onnxruntime.InferenceSession(tmp_path / "vit.onnx")
    for shape in ((2, 40, 40), (1, 24, 48), (3, 48, 24), (5, 72, 80)):
        images = torch.randn(shape[0], 3, *shape[1:])
        (actual,) = session.run(None, {"images": images.numpy()})
        expected = model.forward_feature_map(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(torch.from_numpy(actual), expected, **TOLERANCE)
