"""A pre-training run's weights in the official layout, and in timm."""

import pytest
import torch
from safetensors.torch import save_file

from eva_backbone import eva_debug
from eva_backbone.checkpoints.loading import load_pretrained
from eva_command import convert
from eva_engine.checkpoints import run_checkpoint
from eva_pretrain.masked_image_modeling import masked_image_modeling


@pytest.fixture
def run(tmp_path):
    """Folder of a run with two checkpoints, and the model of the newer."""
    for step in (1, 2):
        model = masked_image_modeling("eva_debug", target_dim=24, img_size=64)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.05)
        folder = tmp_path / "run" / run_checkpoint.CHECKPOINTS / f"step_{step:08d}"
        folder.mkdir(parents=True)
        save_file(model.state_dict(), folder / run_checkpoint.WEIGHTS)
        run_checkpoint.mark_complete(folder)
    return tmp_path / "run", model.eval()


def test_the_newest_checkpoint_in_the_official_layout(run, tmp_path):
    folder, model = run
    output = tmp_path / "eva_psz8.pt"
    assert convert.main([str(folder), "--to=official", f"--output={output}"]) == 0
    weights = torch.load(output, weights_only=True)["model"]
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    backbone = eva_debug(img_size=64).eval()
    load_pretrained(backbone, output)
    images = torch.randn(2, 3, 64, 64)
    expected = model.norm(model.forward_tokens(*model.embed(images)))
    torch.testing.assert_close(backbone.forward_features(images), expected)


def test_what_a_run_lacks(run, tmp_path, capsys):
    folder, _ = run
    ask = ["--to=official", f"--output={tmp_path / 'out.pt'}"]
    assert convert.main([str(folder), "--ema", *ask]) == 1
    assert "no moving average" in capsys.readouterr().err
    assert convert.main([str(tmp_path), *ask]) == 1
    assert "is a folder without weights of a run" in capsys.readouterr().err
    assert convert.main(["eva_debug", "--ema", *ask]) == 1
    assert "--ema is for the folder of a run" in capsys.readouterr().err
