"""An official name means the official content, which is verified once."""

import os
import time
from pathlib import Path

import pytest

from eva_backbone.checkpoints import registry, verification

NAME = "eva_psz14.pt"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("EVA_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def small(weights, monkeypatch):
    """A small file that counts as the official one of its name."""
    path = weights / NAME
    path.write_bytes(b"official content")
    monkeypatch.setitem(registry.SHA256, NAME, verification.sha256_of(path))
    return path


@pytest.fixture
def hashed(monkeypatch):
    """List of the files whose content was hashed."""
    paths, compute = [], verification.sha256_of
    monkeypatch.setattr(
        verification, "sha256_of", lambda path: paths.append(Path(path)) or compute(path)
    )
    return paths


def test_it_is_verified_once_and_again_when_it_changes(small, hashed):
    for _ in range(3):
        assert registry.resolve_source("eva_psz14") == small
    assert hashed == [small]
    assert registry.resolve_source(small) == small  # by path: the same file
    assert hashed == [small]
    content, times = small.read_bytes(), small.stat()
    time.sleep(0.05)  # more than the steps in which the kernel counts
    small.write_bytes(content.replace(b"official", b"0fficial"))  # of the same size
    os.utime(small, ns=(times.st_atime_ns, times.st_mtime_ns))  # and with the same time
    for _ in range(2):
        with pytest.raises(ValueError, match=NAME):
            registry.resolve_source("eva_psz14")
    assert hashed == [small] * 3
    small.write_bytes(content)
    assert registry.resolve_source("eva_psz14") == small
