"""A line for each sample: in order, complete or not there."""

import json

import pytest

from eva_data.files import UnwritableError
from eva_engine.evaluation.sample_lines import writing_sample_lines


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_file_appears_at_the_end(tmp_path):
    file = tmp_path / "samples.jsonl"
    with writing_sample_lines(file) as lines:
        for index in range(3):
            lines.add(index, {"name": f"ä\t{index}\n"})
        assert not file.exists()
    assert read(file) == [{"name": f"ä\t{index}\n"} for index in range(3)]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("torn"), ValueError])
def test_an_interrupted_evaluation_leaves_the_earlier_file(tmp_path, error):
    file = tmp_path / "samples.jsonl"
    file.write_text("{}\n")

    def fail():
        with writing_sample_lines(file) as lines:
            lines.add(0, {"name": "new"})
            raise error

    with pytest.raises(error if isinstance(error, type) else OSError):
        fail()
    assert read(file) == [{}]
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_one_sentence(tmp_path, full_disk):
    def fill():
        with writing_sample_lines(tmp_path / "samples.jsonl") as lines:
            for index in range(100):
                lines.add(index, {"name": "x" * 20_000})

    with pytest.raises(UnwritableError, match=r"samples\.jsonl cannot be written: File too large"):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("samples", [1, 211])
def test_the_lines_of_two_processes_are_merged(launcher, tmp_path, samples):
    """With a process without samples, and with more lines than one digit counts."""
    file = tmp_path / "samples.jsonl"
    ended = launcher(["lines", str(samples), str(file)], ranks=2, log=tmp_path / "log_of_rank")
    assert ended.codes == [0, 0], ended.texts
    assert read(file) == [{"index": index} for index in range(samples)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_end_of_one_process_leaves_nothing(launcher, tmp_path):
    file = tmp_path / "samples.jsonl"
    ended = launcher(["lines", "5", str(file), "fail"], ranks=2, log=tmp_path / "log_of_rank")
    assert 0 not in ended.codes
    assert "the second process fails" in ended.texts[1]
    assert not [path for path in tmp_path.iterdir() if "samples" in path.name]
