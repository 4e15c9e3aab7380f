"""Half precision and int8 of predictors, compiled blocks, and cached features of CLIP."""

import copy

import pytest
import torch
from PIL import Image

from eva_backbone.checkpoints.from_weights import PooledVit
from eva_classification.features import FeatureExtractor
from eva_classification.models import build_classifier
from eva_contrastive.model.eva_clip import ClipOutput
from eva_contrastive.step import ContrastiveStep, build_loss
from eva_engine.steps import engine
from eva_engine.steps.micro_batches import MicroBatches
from eva_runs.data_order import Batch
from eva_runs.precision import lower_backbone, precision_of, to_precision

# norm of the error over the norm, against float32 on the CPU
TOLERANCES = {"fp16": 5e-3, "bf16": 4e-2, "int8": 6e-2}


def error_of(result, expected):
    return ((result.cpu() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("precision", TOLERANCES)
def test_features_of_images(steps, picture, gpu, report, precision):
    model = build_classifier("eva_debug", num_classes=3, **steps.SMALL)
    pooled = PooledVit(model, pooling="mean", image_size=64)
    extract = FeatureExtractor(pooled, mean=[0.5] * 3, std=[0.5] * 3).eval()
    pictures = [Image.fromarray(picture(*size)) for size in ((72, 96), (96, 64))]
    expected = extract(pictures)
    lowered = to_precision(extract, precision, gpu)
    result = lowered(pictures)
    assert precision_of(lowered) == {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "int8")
    assert (result.device.type, result.dtype) == (gpu.type, torch.float32)
    error = error_of(result, expected)
    report(f"features in {precision}: relative error {error:.1e}")
    assert 0 < error < TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
def test_maps_of_a_detector(steps, gpu, precision):
    backbone = steps.detector().eval().backbone
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    lowered = copy.deepcopy(backbone).to(gpu)
    lower_backbone(lowered, precision, gpu)
    with torch.no_grad():
        expected, levels = backbone(image), lowered(image.to(gpu))
    assert levels.keys() == expected.keys()
    for name, level in levels.items():
        assert level.dtype == torch.float32
        assert 0 < error_of(level, expected[name]) < TOLERANCES[precision], name


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo
@pytest.mark.parametrize("kind", ["class token", "layer scale and checkpoints"])
def test_compiled_blocks(steps, gpu, exact, monkeypatch, assert_same_gradients, kind):
    """Loss and gradients of three steps, each of which keeps other samples in each block."""
    if gpu.type == "cpu":  # only to try the test out
        monkeypatch.setattr(engine, "BACKEND", "aot_eager")
    step = steps.vit(kind)
    plain, compiled = (copy.deepcopy(step.model).to(gpu) for _ in range(2))
    batch = step.batch.to(gpu)
    assert engine.compile_model(compiled)
    try:
        for number in range(3):
            losses = []
            for model in (plain, compiled):
                torch.manual_seed(number)
                model.zero_grad()
                losses.append(step.loss(model, batch))
                losses[-1].backward()
            torch.testing.assert_close(losses[1], losses[0], atol=1e-4, rtol=1e-4)
            assert_same_gradients(compiled, plain)
    finally:
        torch._dynamo.reset()


def test_cached_features_have_the_gradients_of_one_graph(steps, gpu, assert_same_gradients):
    """Two micro-batches that leave out blocks and patches at random, the same in both passes."""
    model, cached = (steps.clip(patch_dropout=0.5).to(gpu).train() for _ in range(2))
    pairs = steps.clip_pairs()

    def micro_batches():
        parts = zip(*(part.chunk(2) for part in pairs), strict=True)
        batches = iter([Batch(data=part, draws=[], unreadable={}) for part in parts])
        return MicroBatches(batches, count=2, device=gpu, seeds=(0, 0))

    outputs = [model(*part) for part in micro_batches()]
    features = (torch.cat([output[number] for output in outputs]) for number in range(2))
    loss = build_loss("contrastive")(ClipOutput(*features, *outputs[0][2:]))
    loss.backward()
    step, batches = ContrastiveStep(build_loss("contrastive")), micro_batches()
    step.begin(cached, batches)
    for part in batches:
        value, _ = step(cached, part)
        torch.testing.assert_close(value, loss, atol=1e-4, rtol=1e-4)
        (value / 2).backward()
    assert_same_gradients(cached, model)
