"""Files of weights that others wrote: whatever they hold, an answer or one sentence."""

import os
import random
import resource
import struct
import zipfile

import pytest
import torch
from torch import nn

from eva_backbone.checkpoints.reading import read_torch_file


@pytest.fixture
def archive(save):
    return save({"model": {"weight": torch.arange(4000.0)}, "iteration": 7})


def _repack(path, *, compression=zipfile.ZIP_STORED, more=()):
    """Write an archive once more, with other tools than torch's."""
    copied = path.with_name("copied.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copied, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        for name, content in more:
            new.writestr(name, content)
    return copied


@pytest.mark.parametrize("options", [{}, {"mapped": True}])
@pytest.mark.parametrize("legacy", [False, True])
def test_content_comes_back(save, legacy, options):
    first = torch.arange(6.0)
    content = {"model": {"a": first, "part": first[2:]}, "iteration": 7, "names": ["a", ("b", 1)]}
    path = save(content, _use_new_zipfile_serialization=not legacy)
    actual = read_torch_file(path, **options)
    assert actual["iteration"] == 7
    assert actual["names"] == ["a", ("b", 1)]
    assert torch.equal(actual["model"]["a"], first)
    actual["model"]["a"][3] = -1  # shared memory stays shared, and the file as it was
    assert actual["model"]["part"][1] == -1
    assert torch.equal(read_torch_file(path)["model"]["a"], first)


def test_only_mapped_tensors_lie_in_the_file(archive):
    """What a run continues with outlives a file that is cut."""
    read = read_torch_file(archive)["model"]["weight"]
    os.truncate(archive, 10)
    assert torch.equal(read, torch.arange(4000.0))


def test_files_without_checksums_are_read(save):
    try:
        torch.serialization.set_crc32_options(False)
        path = save({"a": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_torch_file(path)["a"].tolist() == [1, 1, 1]


def test_every_flipped_bit_of_a_record_is_seen(archive):
    """PyTorch reads such files without a word."""
    content, generator = archive.read_bytes(), random.Random(0)
    with zipfile.ZipFile(archive) as opened:
        records = [record for record in opened.infolist() if record.file_size]
    for record in records:
        lengths = struct.unpack_from("<HH", content, record.header_offset + 26)
        place = record.header_offset + 30 + sum(lengths) + generator.randrange(record.file_size)
        flipped = bytes([content[place] ^ 1 << generator.randrange(8)])
        archive.write_bytes(content[:place] + flipped + content[place + 1 :])
        with pytest.raises(ValueError, match=record.filename):
            read_torch_file(archive)


def test_compressed_records_are_refused_before_they_are_unpacked(save):
    """100 kB that claim 100 MB: a larger one takes all memory."""
    path = save({"a": torch.zeros(25_000_000)})
    bomb = _repack(path, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB, the most so far
    with pytest.raises(ValueError, match=r"copied\.pt"):
        read_torch_file(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_torchscript_is_refused_without_running_it(tmp_path):
    path = tmp_path / "script.pt"
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    with pytest.raises(ValueError, match=r"script.pt"):
        read_torch_file(path)
