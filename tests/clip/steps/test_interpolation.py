"""Weights between two files: arithmetic, notes, and the command."""

import pytest
import torch

from eva_contrastive.commands import interpolate as main
from eva_contrastive.interpolation import interpolate
from eva_contrastive.model.eva_clip import build_eva_clip
from eva_contrastive.model.loading import load_eva_clip
from eva_engine.checkpoints.files import read_config, save_weights

NOTES = {"model": {"image_size": 28}}


@pytest.fixture
def end(small_sizes, randomise):
    """Weights that a training from the official file may have ended with, and their file."""
    torch.manual_seed(1)
    model = randomise(build_eva_clip(embed_dim=16))
    file = small_sizes / "end.safetensors"
    save_weights(model.state_dict(), file, NOTES)
    return model, file


def test_the_arithmetic_is_in_float32():
    start = {"w": torch.tensor([1.0, -2.0]).half(), "b": torch.tensor([0.5])}
    end = {"b": torch.tensor([1.5]), "w": torch.tensor([2.0, 2.0 + 2**-20])}
    found = interpolate(start, end, 0.25)
    assert list(found) == ["b", "w"]
    assert found["b"].tolist() == [0.75]
    assert found["w"].tolist() == [1.25, -1.0 + 2**-22]
    assert {value.dtype for value in found.values()} == {torch.float32}
    for share, expected in ((0, start), (1, end)):
        found = interpolate(start, end, share)
        assert all(value.equal(expected[name].float()) for name, value in found.items())


def test_the_command(official_clip, end, tmp_path, capsys):
    """From the official file by its name, in half precision and with a scalar of no dimension."""
    model, file = end
    folder = tmp_path / "between"
    arguments = ["eva_clip_psz14.pt", str(file), "--output", str(folder)]
    assert main([*arguments, "--share", "0", "0.25", "1"]) == 0
    names = ["share_0", "share_0.25", "share_1"]
    assert {path.name for path in folder.iterdir()} == {f"{name}.safetensors" for name in names}
    assert f"share_0.25.safetensors: 0.25 of {file}, 0.75 of " in capsys.readouterr().out
    first, middle, last = (load_eva_clip(folder / f"{name}.safetensors") for name in names)
    for name, value in middle.state_dict().items():
        of_start, of_end = (one.state_dict()[name] for one in (official_clip, model))
        torch.testing.assert_close(value, 0.75 * of_start + 0.25 * of_end)
        assert first.state_dict()[name].equal(of_start)
        assert last.state_dict()[name].equal(of_end)
    assert read_config(folder / "share_0.25.safetensors") == NOTES
