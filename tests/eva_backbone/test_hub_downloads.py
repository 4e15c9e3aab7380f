"""Official files fetched from a hub on this machine, and all that can go wrong with it."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eva_backbone.checkpoints import registry, verification
from eva_backbone.checkpoints.registry import resolve_source

NAME = "eva_psz14to16.pt"
OFFICIAL = "BAAI/EVA"
CONTENT = bytes(range(256)) * 400  # 102,400 bytes: eleven chunks
CHILD = """
import hashlib, json, sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 10_000
from eva_backbone.checkpoints import registry
registry.SHA256["{name}"] = "{digest}"
print("ready", flush=True)
try:
    print(registry.resolve_source("{name}"))
except OSError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def released(hub, tmp_path, monkeypatch):
    """The hub has the official file, whose recorded SHA-256 is that of some bytes."""
    monkeypatch.chdir(tmp_path)
    digest = hub.put(OFFICIAL, NAME, CONTENT)
    monkeypatch.setitem(registry.SHA256, NAME, digest)
    monkeypatch.setattr(verification, "RECORDS", str(tmp_path / "home/verified"))
    return hub


@pytest.fixture
def start(released):
    """Function: start a process that asks for the file; it is a client of the same hub."""
    started = []

    def run():
        script = CHILD.format(name=NAME, digest=registry.SHA256[NAME])
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=dict(os.environ), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _visible(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _refused(source="eva_psz14to16"):
    with pytest.raises(FileNotFoundError) as caught:
        resolve_source(source)
    return str(caught.value)


def _nothing_there(hub):
    assert [name for name in _visible(hub.weights) if name != ".downloads"] == []


ADDRESS = f"hf://{OFFICIAL}/{NAME}"


@pytest.mark.parametrize("source", [NAME, "eva_psz14to16", ADDRESS, Path(ADDRESS), f"{ADDRESS}@v1"])
def test_a_missing_official_file_is_fetched_once_and_verified_once(released, monkeypatch, source):
    path = resolve_source(source)
    assert path == released.weights / NAME
    assert path.read_bytes() == CONTENT
    assert len(released.gets()) == 1
    monkeypatch.setattr(verification, "sha256_of", None)  # it is remembered
    assert resolve_source(source) == path
    assert len(released.gets()) == 1
    assert _visible(released.weights / ".downloads") == [f"{NAME}.lock"]


def test_without_the_variable_it_goes_to_the_cache_of_the_toolkit(released, tmp_path, monkeypatch):
    monkeypatch.delenv("EVA_WEIGHTS")
    assert resolve_source(NAME) == tmp_path / "home/.cache/eva" / NAME


@pytest.mark.parametrize("name", ["EVA_NO_DOWNLOAD", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_switched_off_by_the_environment(released, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    message = _refused()
    assert name in message
    assert f"hf download {OFFICIAL} {NAME} --local-dir {released.weights}" in message
    assert released.requests == []
    assert not released.weights.exists()


def test_switched_off_in_the_library(released, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "huggingface_hub is offline" in _refused()


def test_without_the_library(released, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = _refused()
    assert "pip install eva-toolkit[hub]" in message
    assert "hf download BAAI/EVA" in message
    assert not released.weights.exists()


def test_without_network_one_sentence(released, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    message = _refused()
    assert "http://127.0.0.1:9 cannot be reached" in message
    assert str(released.weights) in message
    assert "hf download" in message
    assert "\n" not in message
    _nothing_there(released)


def test_a_connection_that_breaks_continues_where_it_was(released):
    released.cuts += [35_000, 25_000]
    assert resolve_source(NAME).read_bytes() == CONTENT
    assert released.gets() == [None, "bytes=30000-", "bytes=50000-"]


def test_one_that_stays_broken_is_a_sentence_and_the_next_start_continues(released):
    released.cuts += [40_000, *[0] * 20]
    assert "cannot be reached or broke off" in _refused()
    _nothing_there(released)
    released.cuts.clear()
    assert resolve_source(NAME).read_bytes() == CONTENT
    assert released.gets()[-1] == "bytes=40000-"


def test_a_server_that_does_not_continue(released):
    released.cuts += [40_000, *[0] * 20]
    _refused()
    released.cuts.clear()
    released.ranges = False
    assert resolve_source(NAME).read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(released):
    released.false[OFFICIAL, NAME] = b"\0" * len(CONTENT)
    message = _refused()
    assert "SHA-256" in message
    assert "it was removed" in message
    _nothing_there(released)
    assert _visible(released.weights / ".downloads") == [f"{NAME}.lock"]


def test_another_file_of_the_name_is_refused_before_it_is_downloaded(released):
    released.put(OFFICIAL, NAME, b"other")
    assert "another file than the one recorded" in _refused()
    assert released.gets() == []


@pytest.mark.parametrize("rest", [b"x" * 500, b"x" * 200_000, CONTENT])
def test_whatever_lies_in_the_place_of_an_unfinished_download(released, rest):
    part = released.weights / ".downloads" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(rest)
    assert resolve_source(NAME).read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, "EntryNotFound"), "has no file eva_psz14to16.pt in revision main"),
        ((404, "RevisionNotFound"), "has no revision main"),
        ((401, "RepoNotFound"), "has no repository BAAI/EVA, or it is private"),
        ((403, "GatedRepo"), "accept its conditions"),
        ((403, "Forbidden"), "refuses access (403): log in"),
        ((404, "Nowhere"), "answers with 404: a proxy, or HF_ENDPOINT, may be wrong"),
        ((503, "Busy"), "answers with 503: try again later"),
    ],
)
def test_refusals_of_the_hub_are_sentences(released, answer, sentence):
    released.refused[OFFICIAL] = answer
    message = _refused()
    assert sentence in message
    assert "\n" not in message
    assert len(released.requests) == 1  # no retries
    _nothing_there(released)


def test_a_proxy_that_answers_with_a_page(released, monkeypatch):
    monkeypatch.setattr(type(released), "commit", lambda hub, repo: "")
    assert "does not answer as the hub does" in _refused()


def test_too_little_room_is_said_before_the_download(released, monkeypatch):
    usage = shutil._ntuple_diskusage(10**6, 10**6, 2_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = _refused()
    assert "needs 0.00 GB more" in message
    assert "are free" in message
    assert released.gets() == []


def test_a_disk_that_becomes_full_keeps_nothing(released, small_disk):
    with small_disk(60_000):
        message = _refused()
    assert "the disk is full" in message
    _nothing_there(released)
    assert (released.weights / ".downloads" / f"{NAME}.part").stat().st_size == 0
    assert resolve_source(NAME).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(released):
    released.weights.write_text("a file")
    assert "cannot take it" in _refused()
    assert "EVA_WEIGHTS" in _refused()


@pytest.mark.parametrize(("mode", "lock"), [(0o755, 0o644), (0o2775, 0o664), (0o1777, 0o666)])
def test_who_may_write_in_the_folder_may_lock_there(released, mode, lock):
    released.weights.mkdir()
    released.weights.chmod(mode)
    before = os.umask(0o022)
    try:
        path = resolve_source(NAME)
    finally:
        os.umask(before)
    downloads = released.weights / ".downloads"
    assert stat.S_IMODE(downloads.stat().st_mode) == mode
    assert stat.S_IMODE((downloads / f"{NAME}.lock").stat().st_mode) == lock
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_unfinished_download_of_somebody_else_stays(released, monkeypatch):
    part = released.weights / ".downloads" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"theirs")
    monkeypatch.setattr(os, "access", lambda path, how: path != part)
    assert resolve_source(NAME).read_bytes() == CONTENT
    assert part.read_bytes() == b"theirs"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(released):
    released.weights.mkdir(mode=0o500)
    assert "cannot take it (Permission denied)" in _refused()


def test_links_are_not_followed(released, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"keep me")
    (released.weights / ".downloads").mkdir(parents=True)
    (released.weights / ".downloads" / f"{NAME}.part").symlink_to(mine)
    assert "cannot take it" in _refused()
    assert mine.read_bytes() == b"keep me"
    (released.weights / NAME).symlink_to(tmp_path / "gone")
    assert f"is a link to {tmp_path / 'gone'}" in _refused()


def test_killed_and_started_again_it_continues(released, start):
    released.paused.clear()
    process = start()
    assert released.half_sent.wait(60)
    part = released.weights / ".downloads" / f"{NAME}.part"
    while not part.exists() or part.stat().st_size < 40_000:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    _nothing_there(released)
    there = part.stat().st_size
    released.paused.set()
    assert resolve_source(NAME).read_bytes() == CONTENT
    assert released.gets() == [None, f"bytes={there}-"]


def test_of_two_processes_one_downloads_and_the_other_waits(released, start):
    released.paused.clear()
    first = start()
    assert released.half_sent.wait(60)
    second = start()
    for line in second.stderr:
        if "waiting for it" in line:
            break
    released.paused.set()
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == f"{released.weights / NAME}\n"
        assert process.returncode == 0
    assert len(released.gets()) == 1


def test_those_that_waited_for_a_failure_fail_alike(released, start):
    released.paused.clear()
    released.false[OFFICIAL, NAME] = b"\0" * len(CONTENT)
    first = start()
    assert released.half_sent.wait(60)
    second = start()
    for line in second.stderr:
        if "waiting for it" in line:
            break
    released.paused.set()
    for process in (first, second):
        assert "it was removed" in process.communicate(timeout=60)[1]
    assert len(released.gets()) == 1
    lock = released.weights / ".downloads" / f"{NAME}.lock"
    assert "it was removed" in json.loads(lock.read_text())["failure"]
    released.false.clear()
    assert resolve_source(NAME).read_bytes() == CONTENT  # a later one tries for itself
