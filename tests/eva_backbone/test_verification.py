"""An official name means the official content, which is verified once."""

import json
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


def _record():
    (record,) = Path(verification.RECORDS).expanduser().iterdir()
    return record


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
        with pytest.raises(ValueError, match="incomplete, damaged or another file"):
            registry.resolve_source("eva_psz14")
    assert hashed == [small] * 3
    small.write_bytes(content)
    assert registry.resolve_source("eva_psz14") == small


def test_a_record_that_somebody_else_could_write_does_not_count(small, hashed):
    registry.resolve_source("eva_psz14")
    record = _record()
    assert record.stat().st_mode & 0o777 == 0o600
    record.chmod(0o622)
    registry.resolve_source("eva_psz14")
    assert hashed == [small] * 2
    assert _record().stat().st_mode & 0o777 == 0o600


def test_a_forged_record_does_not_travel_with_the_weights(small, hashed, tmp_path):
    """What an archive can set (size, time) does not suffice; what lies beside is not read."""
    registry.resolve_source("eva_psz14")
    state = json.loads(_record().read_text())
    other = tmp_path / "unpacked" / NAME
    other.parent.mkdir()
    other.write_bytes(b"0fficial content")
    os.utime(other, ns=(state["mtime_ns"], state["mtime_ns"]))
    forged = Path(verification._record_of(other))
    forged.write_text(json.dumps(state | {"path": str(other)}))
    forged.chmod(0o600)
    (other.parent / forged.name).write_text(forged.read_text())
    with pytest.raises(ValueError, match="incomplete, damaged or another file"):
        registry.resolve_source(other)
