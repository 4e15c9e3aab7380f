"""Features between searches: what is new, changed or gone; interruptions and damage."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.inference.library import Library, update

SETTINGS = {"weights": "0" * 64, "frames": 8}


@pytest.fixture
def open_library(tmp_path):
    """Function: the library as a new search finds it."""

    def open_it(settings=SETTINGS):
        (tmp_path / "kept").mkdir(exist_ok=True)
        return Library(tmp_path / "kept", settings, width=16)

    return open_it


@pytest.fixture
def files(media):
    """Function: what a search finds in the folder."""
    return lambda: sorted(path for path in media.rglob("*") if path.is_file())


@pytest.fixture
def computed(clip, monkeypatch):
    """Sizes of the batches of pictures and frames that go through the model."""
    sizes = []
    compute = ClipFeatures.images

    def record(self, pictures, **options):
        sizes.append(len(pictures))
        return compute(self, pictures, **options)

    monkeypatch.setattr(ClipFeatures, "images", record)
    return sizes


@pytest.fixture
def search_again(open_library, clip, media, files):
    """Function: open the library and bring it up to date; both."""

    def run(**options):
        library = open_library()
        changes = update(library, clip, files(), folders=[media], **options)
        return library, changes

    return run


def test_only_what_is_new_or_changed_is_computed(search_again, computed, media, photographs):
    search_again()
    before = len(computed)
    library, changes = search_again()
    assert (changes, len(computed)) == ((4, 0, 0, {}), before)
    stamp = library.file.stat().st_mtime_ns
    Image.fromarray(photographs["cat"]).save(media / "rocket.png")  # of another size
    os.utime(media / "astronaut.png", ns=(1, 1))  # of the same size, at another time
    (media / "new.png").write_bytes((media / "deep" / "cat.png").read_bytes())
    old = library.entries[str(media / "rocket.png")].features
    library, changes = search_again()
    assert (changes.known, changes.computed) == (2, 3)
    assert sum(computed[before:]) == 3
    assert library.file.stat().st_mtime_ns > stamp
    assert not np.array_equal(old, library.entries[str(media / "rocket.png")].features)
    np.testing.assert_array_equal(library.entries[str(media / "rocket.png")].features,
                                  library.entries[str(media / "new.png")].features)  # fmt: skip


def test_an_interrupted_search_continues(search_again, computed, open_library, clip, monkeypatch):
    entries = clip.images.__func__

    def interrupt(self, pictures, **options):
        if len(computed) >= 2:
            raise KeyboardInterrupt
        return entries(self, pictures, **options)

    monkeypatch.setattr(clip, "batch_size", 1)
    with monkeypatch.context() as patched:
        patched.setattr(ClipFeatures, "images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search_again()
    assert len(open_library().entries) == 2
    before = sum(computed)
    _, changes = search_again()
    assert (changes.known, changes.computed) == (2, 2)
    assert sum(computed) - before < 11  # all frames of the film, and all pictures


@pytest.mark.parametrize("damage", ["cut", "bit", "settings", "pipe"])
def test_a_damaged_library_is_computed_again(search_again, open_library, damage, caplog):
    library, _ = search_again()
    file, whole = library.file, bytearray(library.file.read_bytes())
    if damage == "bit":
        whole[-1] ^= 1
    if damage == "settings":
        whole = whole.replace(b"000000", b"111111")
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole)
    if damage == "pipe":
        file.unlink()
        os.mkfifo(file)
    with caplog.at_level(logging.WARNING):
        assert len(open_library().entries) == 0
    assert file.name in caplog.text
    _, changes = search_again()
    assert changes.computed == 4
    assert len(open_library().entries) == 4
