"""The losses by their definitions, in half precision, and over two processes."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from eva_contrastive.model.eva_clip import ClipOutput
from eva_contrastive.step import batch_metrics, build_loss

KINDS = ["contrastive", "sigmoid"]


def output(count=6, dtype=torch.float32, bias=True):
    images, texts = F.normalize(torch.randn(2, count, 16, dtype=torch.float64), dim=-1).to(dtype)
    scale, shift = torch.tensor([7.0], dtype=dtype), torch.tensor([-3.0], dtype=dtype)
    return ClipOutput(images, texts, scale, shift if bias else None)


def by_definition(kind, out):
    """In float64."""
    images, texts, scale = (part.double() for part in out[:3])
    logits = scale * images @ texts.T
    if kind == "sigmoid":
        logits = logits + out.logit_bias.double()
        signs = 2 * torch.eye(len(images)) - 1
        return -F.logsigmoid(signs * logits).sum() / len(images)
    right = logits.diagonal()
    both = logits.logsumexp(1).sum() + logits.logsumexp(0).sum() - 2 * right.sum()
    return both / (2 * len(images))


@pytest.mark.parametrize("kind", KINDS)
def test_by_definition(kind):
    out = output()
    torch.testing.assert_close(build_loss(kind)(out).double(), by_definition(kind, out))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_float32(kind, dtype):
    out = output(count=64, dtype=dtype)
    value = build_loss(kind)(out)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), by_definition(kind, out), rtol=1e-6, atol=1e-6)


def test_accuracies():
    """Texts 0 and 1 are exchanged; picture 2 is also the nearest of text 3."""
    images = torch.eye(5)[:4].half()
    texts = images[[1, 0, 2, 3]].clone()
    texts[3] = F.normalize(torch.tensor([0, 0, 0.8, 0.6, 0]), dim=0).half()
    found = batch_metrics(ClipOutput(images, texts, torch.ones(1), None))
    assert {name: value.item() for name, value in found.items()} == {
        "logit_scale": 1,
        "image_to_text_accuracy": 0.5,
        "text_to_image_accuracy": 0.25,
    }


@pytest.fixture(scope="module")
def steps_of(small_clip, device, launch, tmp_path_factory):
    """Number of processes -> what they wrote of a step of each kind."""
    kinds = [(kind, accumulate) for kind in KINDS for accumulate in (1, 4)]
    alone = tmp_path_factory.mktemp("alone")
    small_clip.write_steps(alone, kinds=kinds)
    return {1: alone, 2: launch("write_steps", kinds=[(kind, 4) for kind in KINDS])}


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 4), (2, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_processes_and_micro_batches_equal_the_full_batch(steps_of, kind, ranks, accumulate):
    """16 pairs in one piece, and in two processes or four micro-batches, or both."""
    one, other = steps_of[1] / f"{kind}_1", steps_of[ranks] / f"{kind}_{accumulate}"
    expected = json.loads((one / "measured0.json").read_text())
    parts = [json.loads((other / f"measured{n}.json").read_text()) for n in range(ranks)]
    means = {name: sum(part[name] for part in parts) / ranks for name in expected}
    assert means == pytest.approx(expected, rel=1e-5)
    assert expected.keys() == {
        "loss",
        "logit_scale",
        "image_to_text_accuracy",
        "text_to_image_accuracy",
    }
    first, second = (load_file(folder / "gradients.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    of_logits = [name for name in first if name.startswith("text.logit_")]
    assert len(of_logits) == (2 if kind == "sigmoid" else 1)
    for name, gradient in first.items():
        assert gradient.abs().max() > 1e-6, name
        torch.testing.assert_close(second[name], gradient, atol=2e-6, rtol=1e-4, msg=name)
