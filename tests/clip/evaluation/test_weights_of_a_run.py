"""What a run's validation finds, the command finds with the weights that the run has written."""

import json

from eva_contrastive.commands import evaluate
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.model.loading import load_eva_clip
from eva_data.captions.opening import open_captions
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_engine.config import RunConfig


def test_the_command_repeats_the_validation(weights, folders, captions, tmp_path):
    transform = evaluation_transform(32, mean=(0.4, 0.5, 0.6), std=(0.3,) * 3)  # as they note
    validation = ContrastiveValidation(
        RunConfig(output=tmp_path, epochs=1, batch_size=4, workers=0, device="cpu"),
        pairs=open_captions(captions),
        transform=transform,
        classes=open_labelled(folders, transform, upright=False),
    )
    expected = validation(load_eva_clip(weights))
    evaluate([
        "--weights", str(weights), "--data", str(folders), "--pairs", str(captions),
        "--device", "cpu", "--workers", "0", "--batch-size", "3", "--output", str(tmp_path / "out"),
    ])  # fmt: skip
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["sets"]["data"]["top1"] == expected["top1"] < 100
    assert found["sets"]["data"]["top5"] == expected["top5"]
    for name in ("image_to_text_r1", "text_to_image_r1"):
        assert found["retrieval"]["pairs"][name] == expected[name]
