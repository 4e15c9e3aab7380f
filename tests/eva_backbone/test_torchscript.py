"""Tensors of TorchScript archives equal those of `torch.jit.load`, and none of their code runs."""

import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_pretrain.teachers import ClipTeacher


class Plain(nn.Module):
    """Parameters and buffers of several types, nested, shared, cut and transposed."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).half()
        self.weight = nn.Parameter(torch.randn(5, 2).t())
        self.register_buffer("part", torch.arange(12.0).view(3, 4)[1:, 2:])
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("scalar", torch.tensor(2.5))
        self.scale = 3.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Malicious(nn.Module):
    """Writes a file when `torch.jit.load` restores it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]
        torch.save(state[0], "ran_code")


@pytest.fixture
def save(tmp_path):
    """Function: write a module as an archive."""

    def write(module, name="archive.pt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(module), tmp_path / name)
        return tmp_path / name

    return write


def change(file, record, content, *, compressed=False):
    """Write an archive again with another content of a record."""
    other = file.with_name("changed.pt")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            kept = old.read(entry)
            kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            is_it = entry.filename.partition("/")[2] == record
            new.writestr(entry.filename, content(kept) if is_it else kept, kind)
    return other


def test_the_tensors_are_those_of_torch(save):
    file = save(Plain())
    assert is_torchscript(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(file).state_dict()
    found = read_torchscript(file)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride())
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_code_of_an_archive_is_not_run(save, tmp_path, monkeypatch):
    """Neither its own, nor on the way through the teacher's builder."""
    monkeypatch.chdir(tmp_path)
    file = save(Malicious())
    read_torchscript(file)
    with pytest.raises(ValueError, match=r"archive\.pt"):
        ClipTeacher.from_open_clip("ViT-B-32-quickgelu", str(file))
    assert not (tmp_path / "ran_code").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(file)  # proves that it would have
    assert (tmp_path / "ran_code").exists()


def test_code_in_the_pickle_is_not_run(save, malice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(malice("ran_code"), protocol=2)
    file = change(save(Plain()), "data.pkl", lambda kept: content)
    with pytest.raises(ValueError, match=r"changed.pt .*posix.mkdir"):
        read_torchscript(file)
    assert not (tmp_path / "ran_code").exists()
    pickle.loads(content)
    assert (tmp_path / "ran_code").exists()


@pytest.mark.parametrize(("record", "content", "message"), [
    ("data.pkl", lambda kept: kept[:-20], "changed.pt"),
    ("data/0", lambda kept: kept[:-3], "changed.pt"),
    ("data/0", lambda kept: b"", "changed.pt"),
    ("data/0", lambda kept: b"\xff" * len(kept), "changed.pt .*NaN"),
])  # fmt: skip
def test_a_damaged_archive_is_one_sentence(save, record, content, message):
    file = change(save(Plain()), record, content)
    with pytest.raises(ValueError, match=message):
        read_torchscript(file)
