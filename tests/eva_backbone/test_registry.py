"""The official release as data, and the resolution of names to files; no network, no weights."""

import dataclasses
import hashlib
import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from eva_backbone.checkpoints import registry
from eva_backbone.variants import VARIANTS

REPOSITORY = Path(__file__).parents[2]
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


def test_names_are_unique_with_and_without_suffix():
    names = [entry.name for entry in registry.OFFICIAL_FILES]
    stems = [entry.stem for entry in registry.OFFICIAL_FILES]
    bundled = [entry.name for entry in registry.BUNDLED_FILES]
    assert len(set(names)) == len(names)
    assert len(set(stems + bundled)) == len(stems + bundled)


@pytest.mark.parametrize("entry", registry.OFFICIAL_FILES, ids=lambda entry: entry.stem)
def test_every_field_is_well_formed(entry):
    assert Path(entry.name).suffix in registry.CHECKPOINT_SUFFIXES
    assert entry.task in registry.TASKS
    assert entry.source == "BAAI/EVA"
    assert entry.variant in {"eva_g_patch14", "eva_g_patch16", "eva_l_patch14"}
    assert entry.variant in VARIANTS
    assert entry.resolution is not None
    assert entry.resolution % VARIANTS[entry.variant].patch_size == 0
    assert entry.size_gb is None or 0 < entry.size_gb < 10
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)


@pytest.mark.parametrize("entry", registry.OFFICIAL_FILES, ids=lambda entry: entry.stem)
def test_data_agree_with_what_the_file_name_says(entry):
    """The authors' names carry architecture, resolution and score."""
    assert (entry.variant == "eva_l_patch14") == entry.name.startswith("eva_l_psz14")
    if pixels := re.search(r"(?:_|_sz)(196|224|336|560)(?:px)?_", entry.name):
        assert entry.resolution == int(pixels[1])
    for whole, decimal in re.findall(r"(\d\d)p(\d)(?!\d)", entry.stem):
        assert f"{whole}.{decimal}" in entry.result


def test_hashes_are_distinct():
    hashes = [entry.sha256 for entry in registry.OFFICIAL_FILES if entry.sha256]
    assert len(hashes) == len(set(hashes)) == len(registry.OFFICIAL_FILES)


def test_entries_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.OFFICIAL_FILES[0].name = "other.pt"


def test_bundled_variants_exist():
    assert {entry.variant for entry in registry.BUNDLED_FILES} <= set(VARIANTS)


# Looking up


@pytest.mark.parametrize("name", ["eva_coco_seg.pth", "eva_coco_seg"])
def test_find_takes_the_name_and_its_stem(name):
    assert registry.find_official_file(name).result == "COCO val box AP 63.9 / mask AP 55.0"


def test_find_names_close_matches_and_the_way_out():
    with pytest.raises(ValueError, match=r"'eva_psz14to61'.*29 official.*eva_psz14to16.*path"):
        registry.find_official_file("eva_psz14to61")


def test_find_without_close_match_still_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"'zzz' is not one of .*list_official_files\(\)"
    ) as caught:
        registry.find_official_file("zzz")
    assert "Close" not in str(caught.value)


def test_list_by_task():
    assert registry.list_official_files() == registry.OFFICIAL_FILES
    assert [entry.stem for entry in registry.list_official_files("detection")] == [
        "eva_o365",
        "eva_coco_det",
        "eva_coco_seg",
        "eva_lvis",
    ]
    with pytest.raises(ValueError, match=r"unknown task 'det'; use one of pretrain, .*video"):
        registry.list_official_files("det")


# Resolving


def test_an_existing_path_wins(weights):
    _touch(weights / OFFICIAL)
    here = _touch(Path(OFFICIAL))
    assert registry.resolve_source(OFFICIAL) == here
    assert registry.resolve_source(here.absolute()) == here.absolute()
    assert registry.resolve_source("eva_psz14") == weights / OFFICIAL


def test_a_path_under_home_is_expanded(home):
    mine = _touch(home / "mine.pt")
    assert registry.resolve_source("~/mine.pt") == mine


@pytest.mark.parametrize("name", [OFFICIAL, "eva_psz14", Path(OFFICIAL)])
def test_eva_weights_comes_before_the_cache(weights, home, caplog, name):
    cached = _touch(home / ".cache/eva" / OFFICIAL)
    with caplog.at_level(logging.WARNING):
        assert registry.resolve_source(name) == cached
    assert "eva_psz14.pt is not in $EVA_WEIGHTS" in caplog.text
    chosen = _touch(weights / OFFICIAL)
    assert registry.resolve_source(name) == chosen


def test_the_cache_alone_needs_no_variable_and_no_warning(home, caplog):
    cached = _touch(home / ".cache/eva" / OFFICIAL)
    assert registry.resolve_source("eva_psz14") == cached
    assert not caplog.records


def test_a_directory_of_that_name_does_not_hide_the_file(weights):
    Path("eva_psz14").mkdir()
    official = _touch(weights / OFFICIAL)
    assert registry.resolve_source("eva_psz14") == official


def test_a_missing_official_file_says_where_and_how(weights, home):
    with pytest.raises(FileNotFoundError) as caught:
        registry.resolve_source("eva_psz14to16")
    message = str(caught.value)
    for part in ("eva_psz14to16.pt (BAAI/EVA, 2 GB)", str(weights), str(home / ".cache/eva")):
        assert part in message
    assert "EVA_NO_DOWNLOAD" in message
    assert f"hf download BAAI/EVA eva_psz14to16.pt --local-dir {weights}" in message


def test_download_command_is_safe_to_paste(tmp_path, monkeypatch):
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path / "my weights"))
    command = registry.download_command(registry.find_official_file("eva_lvis"))
    assert command == f"hf download BAAI/EVA eva_lvis.pth --local-dir '{tmp_path}/my weights'"


def test_an_unknown_name(home):
    with pytest.raises(ValueError, match=r"'eva_psz41' is not one of .*eva_psz14"):
        registry.resolve_source("eva_psz41")


@pytest.mark.parametrize("source", ["runs/eva_psz14.pt", "./eva_psz14.pt", "eva_psz41.pt"])
def test_a_missing_path(weights, source):
    _touch(weights / OFFICIAL)  # a path is never replaced by a file of the same name elsewhere
    with pytest.raises(FileNotFoundError, match=r"no file .*Close to it: .*eva_psz14"):
        registry.resolve_source(source)


@pytest.mark.parametrize("name", ["eva_debug", "eva_debug.safetensors"])
def test_bundled(home, tmp_path, monkeypatch, name):
    monkeypatch.setattr(registry.resources, "files", lambda package: tmp_path / package)
    with pytest.raises(FileNotFoundError, match=r"'eva_debug' should be at .*reinstall"):
        registry.resolve_source(name)
    packaged = _touch(tmp_path / "eva_backbone/weights/eva_debug.safetensors")
    assert registry.resolve_source(name) == registry.bundled_path(name) == packaged


def test_bundled_is_beside_the_module():
    path = Path(str(registry.resources.files("eva_backbone")))
    assert path == Path(registry.__file__).parents[1]


def test_not_bundled():
    with pytest.raises(ValueError, match=r"'eva_psz14' is not bundled; bundled are eva_debug"):
        registry.bundled_path("eva_psz14")


# Verifying


def test_verify_sha256(tmp_path):
    path = _touch(tmp_path / "w.pt")
    actual = hashlib.sha256(b"weights").hexdigest()
    registry.verify_sha256(path, actual)
    registry.verify_sha256(path, actual.upper())
    with pytest.raises(ValueError, match=f"w.pt has SHA-256 {actual}, expected {'0' * 64}"):
        registry.verify_sha256(path, "0" * 64)
    with pytest.raises(ValueError, match="64 hexadecimal digits, got 'd93d…ae41'"):
        registry.verify_sha256(path, "d93d…ae41")


# Documentation


def test_the_document_shows_this_table():
    text = (REPOSITORY / "docs/checkpoints.md").read_text(encoding="utf-8")
    begin, end = "<!-- registry table: begin -->\n", "\n<!-- registry table: end -->"
    shown = text.split(begin)[1].split(end)[0]
    assert shown == registry.markdown_table(), "docs/checkpoints.md says how to print the table"


def test_a_name_is_looked_up_without_torch():
    """A command answers a mistyped name before anything heavy is imported."""
    script = (
        "import sys; from eva_backbone.checkpoints.registry import resolve_source\n"
        "resolve_source('eva_debug'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
