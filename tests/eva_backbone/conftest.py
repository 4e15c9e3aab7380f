"""What the tests of checkpoints share: files, and the proof that nothing was loaded."""

import contextlib

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def save(tmp_path):
    """Function: write a state dict or any other content to a file and return its path."""

    def write(content, name="weights.pt", **options):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in content.items()}, path)
        else:
            torch.save(content, path, **options)
        return path

    return write


@contextlib.contextmanager
def _refused(model, message):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        yield
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert value.is_meta == after[name].is_meta, name
        assert value.is_meta or torch.equal(value, after[name]), name


@pytest.fixture(scope="session")
def refused():
    """Context: a `ValueError` that matches, and a model that is bit for bit as before."""
    return _refused
