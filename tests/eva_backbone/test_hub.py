"""Files of the hub, from a server on this machine: addresses, downloads, and what goes wrong."""

from pathlib import Path

import pytest
import torch

from eva_backbone import build_vit, load_pretrained
from eva_backbone.checkpoints import registry, verification
from eva_backbone.checkpoints.hub import HubFile, is_address, parse_address
from eva_backbone.checkpoints.registry import resolve_source

REPO, OFFICIAL, NAME = "someone/eva-mine", "BAAI/EVA", "eva_psz14to16.pt"
CONTENT = bytes(range(256)) * 400


@pytest.fixture
def released(hub, tmp_path, monkeypatch):
    """The hub has an official file, whose recorded SHA-256 is that of some bytes, and another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.SHA256, NAME, hub.put(OFFICIAL, NAME, CONTENT))
    monkeypatch.setattr(verification, "RECORDS", str(tmp_path / "home/verified"))
    hub.put(REPO, "model.safetensors", CONTENT)
    hub.put(REPO, "runs/last/model.pt", CONTENT[:500])
    return hub


def refused(source=NAME):
    with pytest.raises(FileNotFoundError) as caught:
        resolve_source(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("hf://a/b/c.pt", HubFile("a/b", "c.pt", "main")),
        ("hf://a/b/c/d.pth@v1", HubFile("a/b", "c/d.pth", "v1")),
        ("hf://a/b@refs/pr/3/c/d.pt", HubFile("a/b", "c/d.pt", "refs/pr/3")),
        ("hf://a/b", HubFile("a/b", "model.safetensors", "main")),
        ("hf:/a/b/c.pt", HubFile("a/b", "c.pt", "main")),  # str(Path("hf://a/b/c.pt"))
    ],
)
def test_forms_of_addresses(text, file):
    assert is_address(text)
    assert parse_address(text) == file
    assert parse_address(str(file)) == file


@pytest.mark.parametrize(
    "rest",
    [
        *("b/../../x.pt", "b/../x.pt", "b//etc/x.pt", "b/./x.pt", "b/c\\..\\x.pt", "b"),
        *("../c.pt", "b/c.pt?download=1", "b/c.pt@../../d", "b/c.pt@v1@v2", "b/c.py", "b/folder"),
    ],
)
def test_what_is_no_address_of_weights(rest):
    text = f"hf://a/{rest}" if rest != "b" else "hf://a"
    with pytest.raises(ValueError, match="ORG/REPOSITORY/FILE@REVISION"):
        resolve_source(text)


ADDRESS = f"hf://{OFFICIAL}/{NAME}"


@pytest.mark.parametrize("source", [NAME, "eva_psz14to16", ADDRESS, Path(ADDRESS), f"{ADDRESS}@v1"])
def test_an_official_file_is_fetched_once_and_verified_once(released, monkeypatch, source):
    path = resolve_source(source)
    assert path == released.weights / NAME
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(verification, "sha256_of", None)  # it is remembered
    assert resolve_source(source) == path
    assert len(released.gets()) == 1


def test_other_content_is_refused_and_removed(released):
    released.false[OFFICIAL, NAME] = b"\0" * len(CONTENT)
    with pytest.raises(ValueError, match="SHA-256"):
        resolve_source(NAME)
    assert not (released.weights / NAME).exists()
    released.false.clear()
    assert resolve_source(NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["EVA_NO_DOWNLOAD", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_switched_off_by_the_environment(released, monkeypatch, name):
    path = resolve_source(f"hf://{REPO}")
    released.requests.clear()
    monkeypatch.setenv(name, "1")
    assert resolve_source(f"hf://{REPO}") == path  # of the cache
    message = refused()
    assert name in message
    assert f"hf download {OFFICIAL} {NAME}" in message
    assert released.requests == []


def test_weights_of_other_plain_vits_by_name(released, hub, tmp_path):
    from safetensors.torch import save

    model = build_vit("dinov3_debug")
    hub.put("timm/some_vit.tag", "model.safetensors", save(model.state_dict()))
    loaded = build_vit("dinov3_debug")
    load_pretrained(loaded, "timm/some_vit.tag", complete=True)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def test_backbones_by_name():
    assert registry.find_backbone("dinov3_l16_sat") == ("dinov3_l16", "dinov3_l16_sat")
    assert registry.find_backbone("eva_debug") == ("eva_debug", "eva_debug")
    assert registry.find_backbone("dinov3_debug") == ("dinov3_debug", "")
    with pytest.raises(ValueError, match="dinov3_l16"):
        registry.find_backbone("dinov3_l14")


@pytest.mark.parametrize("name", ["timm/my_vit", "dinov3_l16"])
def test_files_of_this_machine_come_first(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path(name)
    if name.startswith("timm/"):
        file.mkdir(parents=True)
        (file / "config.json").touch()
        file = file / "model.safetensors"
    file.touch()
    registry.require_known(name)
    assert resolve_source(name) == file
