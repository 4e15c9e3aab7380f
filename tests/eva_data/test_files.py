import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eva_data.files import (
    UnwritableError,
    find_files,
    make_folder,
    read_lines,
    replacing,
    require_free,
    require_regular_file,
    write_text,
    writing,
)


def test_a_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "scores.json"
    with writing(file) as stream:
        stream.write(b"half")
        stream.flush()
        assert not file.exists()
    assert file.read_bytes() == b"half"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    file = tmp_path / "scores.json"
    write_text(file, "before")
    with pytest.raises(UnicodeEncodeError), replacing(file) as temporary:
        temporary.write_text("after\udfff", encoding="utf-8")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_a_killed_process_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "scores.json"
    write_text(file, "before")
    program = (
        "import os, signal, pathlib; from eva_data.files import writing\n"
        f"with writing(pathlib.Path({str(file)!r})) as stream:\n"
        "    stream.write(b'after'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert file.read_text() == "before"


def test_a_full_disk_is_named_also_where_the_writer_says_something_else(tmp_path, full_disk):
    file = tmp_path / "model.pth"
    file.write_bytes(b"before")
    message = re.escape(f"{file} cannot be written: File too large")
    with pytest.raises(UnwritableError, match=message) as caught, writing(file) as stream:
        torch.save({"weight": torch.zeros(1_000_000)}, stream)
    assert caught.value.errno is not None
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_an_output_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UnwritableError, match="run is a file and not a folder"):
        make_folder(tmp_path / "run")
    with pytest.raises(UnwritableError, match="run/inside cannot be written: Not a directory"):
        make_folder(tmp_path / "run/inside")


def test_outputs_must_be_free(tmp_path):
    (tmp_path / "old.png").write_text("")
    (tmp_path / "folder.png").mkdir()
    require_free([tmp_path / "new.png", tmp_path / "new/a.png"], overwrite=False)
    require_free([tmp_path / "old.png"], overwrite=True)
    with pytest.raises(ValueError, match=r"old\.png is there already: give --overwrite"):
        require_free([tmp_path / "new.png", tmp_path / "old.png"], overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(ValueError, match=r"folder\.png is a folder and would have to be a f"):
            require_free([tmp_path / "folder.png"], overwrite=overwrite)
        with pytest.raises(ValueError, match=r"old\.png is a file and would have to be a folder"):
            require_free([tmp_path / "old.png" / "sub" / "a.png"], overwrite=overwrite)


def test_pipes_and_devices_are_refused_without_waiting_for_their_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to("missing.png")
    (tmp_path / "round.png").symlink_to("round.png")
    with pytest.raises(OSError, match=r"pipe\.png is a named pipe and not a file"):
        require_regular_file(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="/dev/zero is a device"):
        require_regular_file(Path("/dev/zero"))
    with pytest.raises(OSError, match="is a folder"):
        require_regular_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png is not there"):
        require_regular_file(tmp_path / "nowhere.png")
    with pytest.raises(OSError, match=r"round\.png cannot be read"):
        require_regular_file(tmp_path / "round.png")


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


@pytest.mark.parametrize("content", [
    b"a cat\n\xc3\xa9t\xc3\xa9",
    b"\xef\xbb\xbfa cat \r\n \xc3\xa9t\xc3\xa9\r\n\r\n\n",
])  # fmt: skip
def test_lines_of_a_file_from_any_editor(tmp_path, content):
    (tmp_path / "lines.txt").write_bytes(content)
    assert read_lines(tmp_path / "lines.txt") == ["a cat", "\u00e9t\u00e9"]
