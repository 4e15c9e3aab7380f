"""The resolution of names to files; no network, no weights."""

import logging
from pathlib import Path

import pytest

from eva_backbone.checkpoints import registry

OFFICIAL = "eva_psz14.pt"


@pytest.mark.parametrize("name", [OFFICIAL, "eva_psz14", Path(OFFICIAL)])
def test_the_folder_of_the_environment_comes_before_the_cache(
    name, official, tmp_path, monkeypatch, caplog
):
    chosen, cached = tmp_path / "weights" / OFFICIAL, tmp_path / ".cache/eva" / OFFICIAL
    for file in (chosen, cached):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    official(cached)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EVA_WEIGHTS", str(chosen.parent))
    monkeypatch.chdir(tmp_path)
    assert registry.resolve_source(name) == chosen
    chosen.unlink()
    with caplog.at_level(logging.WARNING):
        assert registry.resolve_source(name) == cached
    assert "$EVA_WEIGHTS" in caplog.text


@pytest.mark.parametrize("name", ["eva_l_psz14.pth", "eva_debug.pt"])
def test_a_name_with_the_suffix_of_another_format_suggests_its_stem(name, monkeypatch):
    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    with pytest.raises(FileNotFoundError, match=f"Close to it: {Path(name).stem}[,.]"):
        registry.resolve_source(name)
