"""The official release as data, and the resolution of names to files; no network, no weights."""

import hashlib
import logging
from pathlib import Path

import pytest

from eva_backbone.checkpoints import registry

OFFICIAL = "eva_psz14.pt"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without weights, an empty working directory and no $EVA_WEIGHTS."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setitem(registry.SHA256, OFFICIAL, hashlib.sha256(b"weights").hexdigest())
    monkeypatch.delenv("EVA_WEIGHTS", raising=False)
    monkeypatch.chdir(work)
    return home


@pytest.fixture
def weights(tmp_path, home, monkeypatch):
    directory = tmp_path / "weights"
    directory.mkdir()
    monkeypatch.setenv("EVA_WEIGHTS", str(directory))
    return directory


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def test_an_existing_path_wins(weights):
    _touch(weights / OFFICIAL)
    here = _touch(Path(OFFICIAL))
    assert registry.resolve_source(OFFICIAL) == here
    assert registry.resolve_source(here.absolute()) == here.absolute()
    assert registry.resolve_source("eva_psz14") == weights / OFFICIAL


@pytest.mark.parametrize("name", [OFFICIAL, "eva_psz14", Path(OFFICIAL)])
def test_eva_weights_comes_before_the_cache(weights, home, caplog, name):
    cached = _touch(home / ".cache/eva" / OFFICIAL)
    with caplog.at_level(logging.WARNING):
        assert registry.resolve_source(name) == cached
    assert "eva_psz14.pt is not in $EVA_WEIGHTS" in caplog.text
    chosen = _touch(weights / OFFICIAL)
    assert registry.resolve_source(name) == chosen
