"""The commands of docs/interop.md for timm and open_clip, as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from eva_command.convert import main as convert
from eva_contrastive.model.eva_clip import build_eva_clip

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()


def _blocks(section, language):
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _run(section, capsys):
    """Run commands in this process, then the Python below them; its variables."""
    for line in "".join(_blocks(section, "bash")).splitlines():
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("eva", "convert")
        assert convert(arguments) == 0, capsys.readouterr().err
    names: dict[str, object] = {}
    for block in _blocks(section, "python"):
        exec(compile(block, f"docs/interop.md, {section}", "exec"), names)
    return names


def test_timm(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = _run("timm", capsys)
    assert names["features"].shape == (1, 128)
    assert names["maps"](torch.zeros(1, 3, 64, 64))[-1].shape == (1, 128, 8, 8)
    assert names["classifier"](torch.zeros(1, 3, 128, 128)).shape == (1, 10)


@pytest.mark.usefixtures("official")
def test_open_clip(tmp_path, monkeypatch, capsys, randomise, official):
    monkeypatch.chdir(tmp_path)
    model = randomise(build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32))
    torch.save(model.state_dict(), tmp_path / "eva_clip_psz14.pt")
    official(tmp_path / "eva_clip_psz14.pt")
    assert _run("open_clip", capsys)["texts"].shape == (1, 16)
    assert (tmp_path / "eva_clip_g_timm" / "config.json").exists()
