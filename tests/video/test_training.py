"""Fine-tuning on encoded videos: it learns, begins with any weights, and is continued."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_data.kinetics import kinetics_classes, mapping
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_video import training
from eva_video.config import AugmentConfig
from eva_video.model.classifier import build_video_classifier, load_video_classifier

PLAIN = AugmentConfig(flip=0.0, color_jitter=0.0, gray=0.0, scales=(1.0, 0.875), label_smoothing=0)


def last_weights(output):
    folder = RunCheckpoints(output, keep=9).complete()[-1]
    return {name: load_file(folder / f"{name}.safetensors") for name in ("model", "model_ema")}


def save(model, file):
    """Write weights as a run does, with the number of frames."""
    noted = {"config": json.dumps({"model": {"frames": model.frames}})}
    save_file(model.state_dict(), file, metadata=noted)


@pytest.mark.parametrize("full", [False, True])
def test_learning_rate_of_the_positions(config, full):
    """They are of the lowest layer, or get all of it; every other parameter stays where it is."""
    config = replace(config, model=replace(config.model, full_position_lr=full))
    model = training.build_model(config.model, num_classes=3)
    decay = config.optimizer.layer_decay
    found = {}
    for group in training.parameter_groups(config, model):
        found |= {id(one): (group.lr_scale, group.weight_decay) for one in group.params}
    expected = decay ** (config.model.depth + 1)
    assert found[id(model.pos_embed)] == (pytest.approx(1.0 if full else expected), 0.0)
    assert found[id(model.cls_token)] == (pytest.approx(expected), 0.0)
    assert found[id(model.patch_embed.proj.weight)][0] == pytest.approx(expected)
    assert found[id(model.head.weight)][0] == 1.0
    assert len(found) == len(list(model.parameters()))


def test_it_learns(config, device, metrics):
    """Chance is a third."""
    run = replace(config.run, epochs=4, batch_size=6, accumulate=1, checkpoint_every=0,
                  ema_decay=0.0, best_metric="top1", keep_checkpoints=1)  # fmt: skip
    model = replace(config.model, image_size=16, drop_path_rate=0.0)
    optimizer = replace(config.optimizer, lr=3e-3, layer_decay=1.0)
    training.train(
        replace(config, model=model, run=run, optimizer=optimizer, augment=PLAIN), device
    )
    *steps, evaluation = metrics(run.output)
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert evaluation["val_top1"] >= 90
    best = run.output / "best" / "model.safetensors"
    assert load_video_classifier(best).num_classes == 3
    report = (run.output / "report.html").read_text()
    for shown in ("24 videos, 3 classes", "Confusion", "truth red, predicted red (", "data:image/"):
        assert shown in report
    noted = json.loads((run.output / "config.json").read_text())
    assert noted["class_names"] == ["blue", "green", "red"]
    assert noted["data"]["mean"] == [0.485, 0.456, 0.406]
    with pytest.raises(ValueError, match="step_00000016"):
        training.train(replace(config, run=replace(config.run, output=run.output)), device)


# The first weights


def test_weights_of_pictures_and_of_clips(config, tmp_path):
    """Positions are repeated for each frame, and resampled to other frames; heads are kept."""
    model = training.build_model(config.model, num_classes=3)
    image = read_weights(resolve_source("eva_debug"))
    patches = model.pos_embed[0, 1:].reshape(4, 16, -1)
    assert all(patches[0].equal(frame) for frame in patches)
    assert torch.equal(model.cls_token, image["cls_token"])
    with torch.no_grad():
        model.pos_embed[:, 17:33] += 1  # the second frame
    file = tmp_path / "clips.safetensors"
    save(model, file)
    longer = replace(config.model, frames=8, init_checkpoint=str(file))
    again = training.build_model(longer, num_classes=3)
    assert again.pos_embed.shape == (1, 1 + 8 * 16, 128)
    assert torch.equal(again.head.weight, model.head.weight)
    lifted = (again.pos_embed[0, 1:] - patches[0].repeat(8, 1)).reshape(8, -1).mean(1)
    expected = torch.tensor([0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0])  # linear between frames
    torch.testing.assert_close(lifted, expected, atol=1e-5, rtol=0)
    other = training.build_model(longer, num_classes=5)
    assert other.head.weight.shape == (5, 128)
    assert other.head.weight.std() < 1e-4  # from scratch


def test_vision_towers_of_clip(config, tmp_path, clip_form, caplog):
    """From each form of EVA-CLIP's file; no class takes a row of the projection."""
    caplog.set_level("INFO")
    image = read_weights(resolve_source("eva_debug"))
    torch.save(clip_form(image, width=16), tmp_path / "clip.pt")
    start = replace(config.model, init_checkpoint=str(tmp_path / "clip.pt"))
    model = training.build_model(start, num_classes=3)
    patches = model.pos_embed[0, 1:].reshape(4, 16, -1)
    assert all(patches[0].equal(frame) for frame in patches)
    for name in ("cls_token", "blocks.3.attn.qkv.weight"):
        assert torch.equal(model.get_parameter(name), image[name])
    assert model.head.weight.std() < 1e-4  # from scratch
    assert ("text tower of CLIP" in caplog.text) == (clip_form.name != "vision tower")


def test_rows_of_a_merged_head(config, tmp_path):
    merged = build_video_classifier("eva_debug", num_classes=722, frames=4, img_size=32)
    with torch.no_grad():
        merged.head.bias.copy_(torch.arange(722))
    save(merged, tmp_path / "k722.safetensors")
    file = str(tmp_path / "k722.safetensors")
    start = replace(config.model, init_checkpoint=file, class_mapping="k400")
    names = kinetics_classes("k400")
    numbers = [str(number) for number in range(400)]
    by_text = sorted(numbers)  # 0, 1, 10, 100 ..., as class folders
    of_text = mapping("k400")[[int(number) for number in by_text]]
    assert training.read_class_mapping("k400", by_text) == of_text.tolist()
    for classes in (names, numbers):
        rows = training.read_class_mapping("k400", classes)
        model = training.build_model(start, num_classes=400, head_rows=rows)
        assert model.head.bias.tolist() == mapping("k400").tolist()
    some = [names[7], names[3].replace(" ", "_")]
    assert training.read_class_mapping("k400", some) == mapping("k400")[[7, 3]].tolist()
    np.save(tmp_path / "rows.npy", np.array([5, 700]))
    assert training.read_class_mapping(str(tmp_path / "rows.npy"), ["a", "b"]) == [5, 700]


def test_frozen_blocks_stay(config, device):
    model = replace(config.model, frozen_blocks=3, activation_checkpointing=True)
    run = replace(config.run, epochs=1)
    training.train(replace(config, model=model, run=run), device)
    begin = training.build_model(config.model, num_classes=3).state_dict()
    end = last_weights(config.run.output)["model"]
    frozen = {name for name, value in end.items() if value.equal(begin[name])}
    lower = ("cls_token", "pos_embed", "patch_embed.", "blocks.0.", "blocks.1.", "blocks.2.")
    assert frozen == {name for name in end if name.startswith(lower)}
