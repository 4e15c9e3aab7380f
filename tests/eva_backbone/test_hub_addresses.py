"""Addresses of the hub: what they mean, and files of any repository in huggingface_hub's cache."""

import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch

from eva_backbone import load_pretrained
from eva_backbone.checkpoints import registry, verification
from eva_backbone.checkpoints.hub import cached
from eva_backbone.checkpoints.hub.addresses import HubFile, is_address, parse_address
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import build_vit

REPO = "someone/eva-mine"
CONTENT = b"weights" * 1000


@pytest.fixture
def mine(hub, tmp_path, monkeypatch):
    """The hub has a file of somebody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verification, "RECORDS", str(tmp_path / "home/verified"))
    hub.put(REPO, "model.safetensors", CONTENT)
    hub.put(REPO, "runs/last/model.pt", CONTENT[:500])
    return hub


def _refused(source=f"hf://{REPO}"):
    with pytest.raises(FileNotFoundError) as caught:
        resolve_source(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("hf://a/b/c.pt", HubFile("a/b", "c.pt", "main")),
        ("hf://a/b/c/d.pth@v1", HubFile("a/b", "c/d.pth", "v1")),
        ("hf://a/b/c.pt@refs/pr/3", HubFile("a/b", "c.pt", "refs/pr/3")),
        ("hf://a/b@v1/c/d.pt", HubFile("a/b", "c/d.pt", "v1")),
        ("hf://a/b@refs/pr/3/c/d.pt", HubFile("a/b", "c/d.pt", "refs/pr/3")),
        ("hf://a/b@refs/pr/3", HubFile("a/b", "model.safetensors", "refs/pr/3")),
        ("hf://a/b", HubFile("a/b", "model.safetensors", "main")),
        ("hf://a/b/", HubFile("a/b", "model.safetensors", "main")),
        ("hf://a/b@0123abc", HubFile("a/b", "model.safetensors", "0123abc")),
        ("hf://A-1/b_2.c/x y.pt", HubFile("A-1/b_2.c", "x y.pt", "main")),
        ("hf:/a/b/c.pt", HubFile("a/b", "c.pt", "main")),  # str(Path("hf://a/b/c.pt"))
    ],
)
def test_forms_of_addresses(text, file):
    assert is_address(text)
    assert parse_address(text) == file
    assert parse_address(str(file)) == file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hf://a/b/../../x.pt", "not a path in a repository"),
        ("hf://a/b/../x.pt", "not a path in a repository"),
        ("hf://a/b//etc/x.pt", "not a path in a repository"),
        ("hf://a/b/./x.pt", "not a path in a repository"),
        ("hf://a/b/c\\..\\x.pt", "not a path in a repository"),
        ("hf://a/b/c.pt?download=1", "not a path in a repository"),
        ("hf://../b/c.pt", "cannot be its ORG"),
        ("hf://a/../c.pt", "cannot be its REPOSITORY"),
        ("hf://a/b--c/x.pt", "cannot be its REPOSITORY"),
        ("hf://a", "cannot be its REPOSITORY"),
        ("hf://a/b/c.pt@", None),
        ("hf://a/b/c.pt@../../d", "cannot be a revision"),
        ("hf://a/b/c.pt@v1@v2", "cannot be a revision"),
        ("hf://a/b/c.py", "does not end in one of .pt, .pth, .safetensors"),
        ("hf://a/b/folder", "does not end in"),
        ("hf://datasets/a/b.pt", "repositories of models"),
    ],
)
def test_what_is_no_address_of_weights(text, reason):
    if reason is None:
        assert parse_address(text).revision == "main"
        return
    with pytest.raises(ValueError, match="is not an address of weights") as caught:
        resolve_source(text)
    assert reason in str(caught.value)
    assert "hf://ORG/REPOSITORY/FILE@REVISION" in str(caught.value)


@pytest.mark.parametrize("text", ["hf:cifar10:test", "hf:///a/b", "model.pt", "hf", "a/hf://b"])
def test_what_is_not_taken_for_an_address(text):
    assert not is_address(text)


@pytest.mark.parametrize(
    ("source", "name", "size"),
    [
        (f"hf://{REPO}", "model.safetensors", 7000),
        (f"hf://{REPO}/runs/last/model.pt@v1", "model.pt", 500),
    ],
)
def test_a_file_comes_into_the_shared_cache_and_its_commit_into_the_log(
    mine, caplog, source, name, size
):
    with caplog.at_level(logging.INFO):
        path = resolve_source(source)
    assert path.is_relative_to(mine.cache)
    assert path.name == name
    assert path.read_bytes() == CONTENT[:size]
    assert f"{source.removesuffix('@v1')}" in caplog.text
    assert f"is commit {mine.commit(REPO)}" in caplog.text
    assert resolve_source(Path(source)) == path
    assert len(mine.gets()) == 1
    assert resolve_source(path) == path  # as later code sees it


def test_a_commit_that_is_there_asks_nobody(mine):
    commit = mine.commit(REPO)
    path = resolve_source(f"hf://{REPO}@{commit}")
    before = len(mine.requests)
    assert resolve_source(f"hf://{REPO}@{commit}") == path
    assert len(mine.requests) == before


def test_a_branch_that_moved_is_fetched_again(mine):
    first = resolve_source(f"hf://{REPO}")
    mine.put(REPO, "model.safetensors", b"newer")
    second = resolve_source(f"hf://{REPO}")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"newer")


def test_a_branch_that_moves_between_question_and_download(mine, monkeypatch):
    first, look_up = mine.commit(REPO), cached.look_up

    def moving(file):
        found = look_up(file)
        mine.put(REPO, "model.safetensors", b"newer")
        return found

    monkeypatch.setattr(cached, "look_up", moving)
    path = resolve_source(f"hf://{REPO}")
    assert path.parent.name == first
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    assert resolve_source(f"hf://{REPO}") == path


@pytest.mark.parametrize("source", [f"hf://{REPO}", "hf://BAAI/EVA/eva_psz14to16.pt"])
def test_a_token_does_not_travel_to_the_server_that_the_hub_redirects_to(
    mine, load_module, monkeypatch, source
):
    digest = mine.put("BAAI/EVA", "eva_psz14to16.pt", CONTENT)
    monkeypatch.setitem(registry.SHA256, "eva_psz14to16.pt", digest)
    monkeypatch.setenv("HF_TOKEN", mine.token)
    with load_module(Path(__file__).parents[1] / "hub_server.py").serving() as storage:
        storage.files.update(mine.files)
        for repo, _ in list(mine.files):
            assert storage.commit(repo) == mine.commit(repo)
        mine.storage = storage.url
        assert resolve_source(source).read_bytes() == CONTENT
        assert {sent for _, sent in mine.authorizations} == {f"Bearer {mine.token}"}
        assert {sent for _, sent in storage.authorizations} == {None}
        assert storage.gets() == [None]


@pytest.mark.parametrize("name", ["EVA_NO_DOWNLOAD", "HF_HUB_OFFLINE"])
def test_without_downloads_the_copy_is_taken(mine, monkeypatch, caplog, name):
    path = resolve_source(f"hf://{REPO}")
    mine.requests.clear()
    monkeypatch.setenv(name, "1")
    assert resolve_source(f"hf://{REPO}") == path
    assert f"taking the copy of commit {mine.commit(REPO)}" in caplog.text
    message = _refused(f"hf://{REPO}/runs/last/model.pt@v1")
    assert name in message
    assert f"hf download {REPO} runs/last/model.pt --revision v1" in message
    assert mine.requests == []


def test_without_an_answer_the_copy_is_taken(mine, caplog):
    path = resolve_source(f"hf://{REPO}")
    mine.refused[REPO] = (503, "Busy")
    assert resolve_source(f"hf://{REPO}") == path
    assert "answers with 503" in caplog.text
    assert "answers with 503" in _refused(f"hf://{REPO}/runs/last/model.pt")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (f"hf://{REPO}/other.pt", "has no file other.pt in revision main"),
        (f"hf://{REPO}@v9", "has no revision v9"),
        ("hf://someone/else", "has no repository someone/else, or it is private"),
    ],
)
def test_what_the_hub_does_not_have(mine, source, sentence):
    assert sentence in _refused(source)
    assert len(mine.requests) == 1


def test_a_broken_connection_continues(mine):
    mine.put(REPO, "model.safetensors", bytes(50_000))
    mine.cuts += [25_000]
    assert len(resolve_source(f"hf://{REPO}").read_bytes()) == 50_000
    assert mine.gets() == [None, "bytes=20000-"]


def test_what_broke_off_continues_at_the_next_start(mine):
    mine.put(REPO, "model.safetensors", bytes(50_000))
    mine.cuts += [25_000, *[0] * 20]
    assert "cannot be reached or broke off" in _refused()
    mine.cuts.clear()
    assert resolve_source(f"hf://{REPO}").read_bytes() == bytes(50_000)
    assert mine.gets()[-1] == "bytes=20000-"
    assert list(mine.cache.rglob("*.incomplete")) == []


def test_other_content_is_refused_and_removed(mine):
    mine.false[REPO, "model.safetensors"] = CONTENT[::-1]
    assert "it was removed" in _refused()
    assert not any(path.is_file() for path in mine.cache.rglob("model.safetensors"))
    mine.false.clear()
    assert resolve_source(f"hf://{REPO}").read_bytes() == CONTENT


def test_an_official_name_elsewhere_must_be_the_official_file(mine):
    mine.put(REPO, "eva_psz14.pt", b"tuned")
    with pytest.raises(ValueError, match=r"but the official eva_psz14\.pt has"):
        resolve_source(f"hf://{REPO}/eva_psz14.pt")


def test_too_little_room(mine, monkeypatch):
    usage = shutil._ntuple_diskusage(10**6, 10**6, 2_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "are free: make room, or let HF_HUB_CACHE name" in _refused()


def test_without_the_library(mine, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install eva-toolkit[hub]" in _refused()


def test_weights_load_through_an_address(hub, tmp_path):
    """`load_pretrained`, by name of the bundled file and by its address on the hub."""
    hub.put(REPO, "model.safetensors", registry.bundled_path("eva_debug").read_bytes())
    one, other = (build_vit("eva_debug") for _ in range(2))
    load_pretrained(one, "eva_debug")
    load_pretrained(other, f"hf://{REPO}")
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)
