"""The official release as data, and the resolution of names to files; no network, no weights."""

import hashlib
import logging
import subprocess
import sys
from collections import Counter
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


# The data


def test_the_release_has_29_files_in_six_tasks():
    assert len(registry.OFFICIAL_FILES) == 29
    # peers.md counts by README: 11 eva + 6 clip + 4 det + 4 seg + 4 video. The four ImageNet
    # classifiers made from EVA-CLIP are classification here.
    assert Counter(entry.task for entry in registry.OFFICIAL_FILES) == {
        "pretrain": 3,
        "classification": 12,
        "clip": 2,
        "detection": 4,
        "segmentation": 4,
        "video": 4,
    }


# Looking up


# Resolving


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


def test_a_missing_official_file_says_where_and_how(weights, home):
    with pytest.raises(FileNotFoundError) as caught:
        registry.resolve_source("eva_psz14to16")
    message = str(caught.value)
    for part in (
        "hf://BAAI/EVA/eva_psz14to16.pt is not on this machine (2 GB)",
        str(weights),
        str(home / ".cache/eva"),
    ):
        assert part in message
    assert "EVA_NO_DOWNLOAD" in message
    assert f"hf download BAAI/EVA eva_psz14to16.pt --local-dir {weights}" in message


@pytest.mark.parametrize("source", ["runs/eva_psz14.pt", "./eva_psz14.pt", "eva_psz41.pt"])
def test_a_missing_path(weights, source):
    _touch(weights / OFFICIAL)  # a path is never replaced by a file of the same name elsewhere
    with pytest.raises(FileNotFoundError, match=r"no file .*Close to it: .*eva_psz14"):
        registry.resolve_source(source)


# Verifying


# Documentation


def test_a_name_is_looked_up_without_torch():
    """A command answers a mistyped name before anything heavy is imported."""
    script = (
        "import sys; from eva_backbone.checkpoints.registry import resolve_source\n"
        "resolve_source('eva_debug'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
