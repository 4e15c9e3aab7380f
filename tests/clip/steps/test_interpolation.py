"""Weights between two files: arithmetic, notes, refusals, and those of a run at its end."""

import logging

import pytest
import torch
from safetensors.torch import load_file

from eva_contrastive.commands import interpolate as main
from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.interpolation import check_start, interpolate, write_interpolated
from eva_contrastive.model.eva_clip import build_eva_clip
from eva_contrastive.model.loading import load_eva_clip
from eva_engine.checkpoints.files import mark_complete, read_config, save_weights
from eva_engine.config import OptimizerConfig, RunConfig

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


@pytest.mark.parametrize(("start", "end", "message"), [
    ({"a": 1, "b": 1}, {"a": 1}, "of different models: b"),
    ({"a": 1}, {"a": 1, "c": 1}, "of different models: c"),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3},
     r"different models: b has shape \(2,\) in the start and \(3,\) in the end"),
])  # fmt: skip
def test_other_models_are_refused(start, end, message):
    start, end = ({name: torch.zeros(n) for name, n in one.items()} for one in (start, end))
    with pytest.raises(ValueError, match=message):
        interpolate(start, end, 0.5)


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


def test_the_folder_of_a_run(official_clip, end, tmp_path):
    folder = tmp_path / "run/checkpoints/step_00000007"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"step": 7}')
    for name in ("model", "model_ema"):
        save_weights(end[0].state_dict(), folder / f"{name}.safetensors", {"of": name})
    mark_complete(folder)
    for more, name in (([], "model"), (["--ema", "--overwrite"], "model_ema")):
        output = tmp_path / "between"
        assert main(["eva_clip_psz14", str(tmp_path / "run"), "--output", str(output), *more]) == 0
        assert read_config(output / "share_0.5.safetensors") == {"of": name}


@pytest.mark.parametrize(("arguments", "message"), [
    (["start.pt", "{end}"], "start.pt"),
    (["eva_clip_psz14", "{end}", "--share", "0.5", "0.5"], "two outputs are the same file"),
    (["eva_clip_psz14", "{end}", "--ema"], "--ema is for the folder of a run"),
    (["eva_clip_psz14", "{broken}"], "broken.safetensors cannot be read"),
    (["eva_clip_psz14", "{other}"],
     "different models: visual.head.weight has shape (16, 44) in the start and (8, 44) in the end"),
])  # fmt: skip
def test_the_command_refuses(official_clip, end, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.safetensors").write_bytes(end[1].read_bytes()[:-1])
    other = build_eva_clip(embed_dim=8).state_dict()
    save_weights(other, tmp_path / "other.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in ("end", "broken", "other")}
    output = tmp_path / "between"
    given = [argument.format(**files) for argument in arguments]
    assert main([*given, "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists() or not list(output.iterdir())


# At the end of a run


def make_config(output, *, interpolation=0.3, start="eva_clip_psz14.pt"):
    return ContrastiveConfig(
        model=ModelConfig(
            variant="eva_g_patch14", image_size=28, init_checkpoint=start, embed_dim=16
        ),
        data=DataConfig(train="pairs.csv"),
        vision=TowerConfig(lr=1e-6),
        text=TowerConfig(lr=1e-6),
        optimizer=OptimizerConfig(lr=1e-6),
        run=RunConfig(output=output),
        interpolation=interpolation,
    )


@pytest.fixture
def finished(end, tmp_path):
    """A run with two complete checkpoints, of which the newer one is the end."""
    for step, factor in ((3, 0.0), (12, 1.0)):
        folder = tmp_path / f"run/checkpoints/step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(f'{{"step": {step}}}')
        state = {name: factor * value for name, value in end[0].state_dict().items()}
        save_weights(state, folder / "model.safetensors", NOTES)
        mark_complete(folder)
    return tmp_path / "run"


def test_a_run_at_its_end(official_clip, end, finished, caplog):
    caplog.set_level(logging.INFO)
    config = make_config(finished)
    check_start(config)
    file = write_interpolated(config, official_clip.state_dict)
    assert file == finished / "interpolated/model.safetensors"
    assert "0.3 of step_00000012" in caplog.text
    found = load_file(file)
    for name, value in found.items():
        expected = 0.7 * official_clip.state_dict()[name] + 0.3 * end[0].state_dict()[name]
        torch.testing.assert_close(value, expected)
    assert read_config(file) == NOTES
    content = file.read_bytes()
    assert write_interpolated(config, official_clip.state_dict) == file
    assert file.read_bytes() == content


def test_a_start_that_is_not_a_complete_clip(official_clip, small_sizes, tmp_path):
    state = official_clip.state_dict()
    alone = {name: value for name, value in state.items() if name.startswith("visual.")}
    torch.save(alone, tmp_path / "vision.pt")
    for start in ("", str(tmp_path / "vision.pt")):
        with pytest.raises(ValueError, match=r"interpolation=0.3 needs a start that is a complete"):
            check_start(make_config(tmp_path / "run", start=start))
    check_start(make_config(tmp_path / "run", start="", interpolation=1.0))
