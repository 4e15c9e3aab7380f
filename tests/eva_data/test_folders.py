"""Folders that appear when they are complete."""

import os
import signal
import subprocess
import sys

import pytest

from eva_data.files import (
    UnwritableError,
    remove_leftovers,
    replacing_folder,
    require_replaceable,
    writing,
)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_complete_and_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "new" / "a[b]"
    for text in ("one", "two"):
        with replacing_folder(folder) as place:
            (place / text).write_text(text)
            assert not folder.exists() or _names(folder) == ["one"]
        assert _names(folder) == [text]
    assert _names(folder.parent) == ["a[b]"]


def _interrupted(folder):
    with replacing_folder(folder) as place:
        (place / "half").touch()
        raise KeyboardInterrupt


def test_an_error_keeps_the_earlier_one(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(folder)
    assert _names(tmp_path) == ["a"]
    assert _names(folder) == ["kept"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = (
        "import os, signal\nfrom pathlib import Path\n"
        "from eva_data.files import replacing_folder\n"
        f"with replacing_folder(Path({str(tmp_path / 'a')!r})) as place:\n"
        "    (place / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    (left,) = _names(tmp_path)
    assert left.startswith(".a.partial-")
    alive = tmp_path / f".a.partial-{os.getppid()}"
    alive.mkdir()
    (tmp_path / ".ab.partial-1").mkdir()  # of another folder
    remove_leftovers(tmp_path / "a")
    assert _names(tmp_path) == sorted([alive.name, ".ab.partial-1"])


def test_what_is_to_be_kept_is_refused(tmp_path):
    folder = tmp_path / "a"
    require_replaceable(folder, ["x"], overwrite=False)
    folder.mkdir()
    require_replaceable(folder, ["x"], overwrite=False)
    (folder / "x").touch()
    with pytest.raises(ValueError, match="is there already: give --overwrite or another name"):
        require_replaceable(folder, ["x"], overwrite=False)
    require_replaceable(folder, ["x"], overwrite=True)
    (folder / "y").touch()
    with pytest.raises(ValueError, match="holds y, which this program does not write"):
        require_replaceable(folder, ["x"], overwrite=True)
    for path in (folder / "x", folder / "x" / "deeper"):
        with pytest.raises(ValueError, match="x is a file and would have to be a folder"):
            require_replaceable(path, ["x"], overwrite=True)


def test_a_full_disk_names_the_folder_that_was_asked_for(tmp_path, full_disk):
    with pytest.raises(UnwritableError, match=f"^{tmp_path}/a/big cannot be written: File too"):
        _filled(tmp_path / "a")
    assert not _names(tmp_path)


def _filled(folder):
    with replacing_folder(folder) as place, writing(place / "big") as stream:
        stream.write(bytes(2**22))
