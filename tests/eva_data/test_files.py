"""Files and folders that appear when they are complete, and what is no file."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eva_data.files import find_files
from eva_data.index import Table
from eva_data.saving import (
    UnwritableError,
    open_atomic,
    remove_leftovers,
    replace_file,
    replace_folder,
    require_free,
    require_replaceable,
    write_tensors,
    write_text,
)


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    file = tmp_path / "scores.json"
    write_text(file, "before")
    with pytest.raises(UnicodeEncodeError), replace_file(file) as temporary:
        temporary.write_text("after\udfff", encoding="utf-8")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_outputs_must_be_free(tmp_path):
    (tmp_path / "old.png").write_text("")
    (tmp_path / "folder.png").mkdir()
    require_free([tmp_path / "new.png", tmp_path / "new/a.png"], overwrite=False)
    require_free([tmp_path / "old.png"], overwrite=True)
    with pytest.raises(ValueError, match=r"old\.png"):
        require_free([tmp_path / "new.png", tmp_path / "old.png"], overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(ValueError, match=r"folder\.png"):
            require_free([tmp_path / "folder.png"], overwrite=overwrite)
        with pytest.raises(ValueError, match=r"old\.png"):
            require_free([tmp_path / "old.png" / "sub" / "a.png"], overwrite=overwrite)


def test_links_in_a_loop_give_each_file_once(tmp_path):
    (tmp_path / "b/c").mkdir(parents=True)
    for name in ("z.png", "a.PNG", "b/x.jpg", "b/c/y.jpg", "b/notes.txt", ".hidden.png", "b/.png"):
        (tmp_path / name).write_text("")
    (tmp_path / "b/c/back").symlink_to(tmp_path)
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "b/beyond").symlink_to(tmp_path.parent)
    (tmp_path / "linked.png").symlink_to("z.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    found = list(find_files(tmp_path, {".png", ".jpg"}))
    assert found == ["a.PNG", "linked.png", "z.png", "b/x.jpg", "b/c/y.jpg"]


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_complete_and_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "new" / "a[b]"
    for text in ("one", "two"):
        with replace_folder(folder) as place:
            (place / text).write_text(text)
            assert not folder.exists() or _names(folder) == ["one"]
        assert _names(folder) == [text]
    assert _names(folder.parent) == ["a[b]"]


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, full_disk):
    message = re.escape(f"{tmp_path / 'a'} cannot be written: File too large")
    with pytest.raises(UnwritableError, match=message), replace_folder(tmp_path / "a") as place:
        (place / "x").write_bytes(bytes(10_000_000))
    assert not _names(tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = (
        "import os, signal\nfrom pathlib import Path\n"
        "from eva_data.saving import replace_folder\n"
        f"with replace_folder(Path({str(tmp_path / 'a')!r})) as place:\n"
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


def test_what_a_writer_killed_between_its_renames_had_put_away_comes_back(tmp_path):
    for kind in ("partial", "replaced"):  # of a process with a number that none has
        (tmp_path / f".a.{kind}-4194305").mkdir()
        (tmp_path / f".a.{kind}-4194305/{kind}").touch()
    remove_leftovers(tmp_path / "a")
    assert _names(tmp_path) == ["a"]
    assert _names(tmp_path / "a") == ["replaced"]


def test_what_is_to_be_kept_is_refused(tmp_path):
    folder = tmp_path / "a"
    require_replaceable(folder, ["x"], overwrite=False)
    folder.mkdir()
    require_replaceable(folder, ["x"], overwrite=False)
    (folder / "x").touch()
    with pytest.raises(ValueError, match="--overwrite"):
        require_replaceable(folder, ["x"], overwrite=False)
    require_replaceable(folder, ["x"], overwrite=True)
    (folder / "y").touch()
    with pytest.raises(ValueError, match="holds y"):
        require_replaceable(folder, ["x"], overwrite=True)
    for path in (folder / "x", folder / "x" / "deeper"):
        with pytest.raises(ValueError, match="x is a file"):
            require_replaceable(path, ["x"], overwrite=True)


def _by_torch(file):
    """The writer says something else of a full disk."""
    with open_atomic(file) as stream:
        torch.save({"weight": torch.zeros(1_000_000)}, stream)


WRITERS = {
    "torch": _by_torch,
    "tensors": lambda file: write_tensors({"a": torch.zeros(1_000_000)}, file),
    "arrays": lambda file: write_tensors({"a": np.zeros(1_000_000, np.float32)}, file),
    "index": lambda file: Table({"a": np.zeros(1_000_000, np.int64)}).save(file),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(write, tmp_path, full_disk):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"before")
    message = re.escape(f"{file} cannot be written: File too large")
    with pytest.raises(UnwritableError, match=f"^{message}$"):
        write(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whoever_may_read_a_text_file_may_read_it(write, tmp_path):
    (tmp_path / "text").touch()
    write(tmp_path / "model.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_views_are_written_as_they_look(tmp_path):
    weights = {"turned": torch.arange(6.0).view(2, 3).T, "part": torch.arange(9)[::2]}
    write_tensors(weights, tmp_path / "a.safetensors", {"note": "text"})
    for name, value in load_file(tmp_path / "a.safetensors").items():
        assert torch.equal(value, weights[name])
