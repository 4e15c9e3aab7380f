"""`eva weights`: what is here, where, and whether it is the official file."""

import hashlib

import pytest

from eva_backbone.checkpoints import registry
from eva_command.weights import get_command, list_command, verify_command

NAME = "eva_psz14.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of official files, empty; another user's cache is not looked at."""
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(registry, "DEFAULT_WEIGHTS_DIRECTORY", str(tmp_path / "nothing"))
    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    return tmp_path


def test_the_list_says_what_is_here(folder, capsys):
    (folder / NAME).write_bytes(b"x")
    assert list_command([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(registry.OFFICIAL_FILES) + 1
    (here,) = [line for line in lines if line.startswith(f"{NAME} ")]
    assert str(folder) in here
    assert "2.02 GB" in here
    assert list_command(["video"]) == 0
    assert "eva_coco_det" not in capsys.readouterr().out


def test_a_bundled_file_is_always_here(capsys):
    assert get_command(["eva_debug"]) == 0
    assert capsys.readouterr().out.endswith("eva_debug.safetensors\n")


def test_a_file_that_is_not_here_is_one_sentence(folder, capsys):
    assert get_command([NAME]) == 1
    assert NAME in capsys.readouterr().err
    assert verify_command([NAME]) == 1
    assert f"{NAME} is not on this machine" in capsys.readouterr().err
    assert verify_command([]) == 0
    assert "no official file is here" in capsys.readouterr().out


def test_content_is_compared(folder, capsys, monkeypatch):
    (folder / NAME).write_bytes(b"x")
    assert verify_command([]) == 1
    assert "incomplete, damaged or another file" in capsys.readouterr().err
    digest = hashlib.sha256(b"x").hexdigest()
    monkeypatch.setitem(registry.SHA256, NAME, digest)
    assert verify_command([str(folder / NAME)]) == 0
    assert "is the official file" in capsys.readouterr().out
    assert verify_command(["mine.pt"]) == 1
    assert "not one of the 29 official" in capsys.readouterr().err
