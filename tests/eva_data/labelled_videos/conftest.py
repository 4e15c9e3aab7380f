"""Files that are named like videos, and lists of them."""

import pytest


@pytest.fixture
def make_files(tmp_path):
    """Function: empty files at paths below a folder; returns it."""

    def make(*paths, folder="data"):
        for path in paths:
            file = tmp_path / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        (tmp_path / folder).mkdir(exist_ok=True)
        return tmp_path / folder

    return make


@pytest.fixture
def write_list(tmp_path):
    """Function: a list of lines beside the files; returns its path."""

    def write(*lines, name="data/list.txt", end="\n"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = end.join(lines) + end
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        return file

    return write


@pytest.fixture
def content():
    """Function: [(name, label)] in the order of the videos."""

    def describe(videos):
        return [(videos.name(i), int(videos.labels[i])) for i in range(len(videos))]

    return describe
