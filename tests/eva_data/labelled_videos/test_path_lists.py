"""Lists of lines `path label`: separators, labels, suffixes, what is refused by line."""

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from eva_data.labelled_videos.lists import Labels, list_line, read_path_list
from eva_data.labelled_videos.sources import open_videos

MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATHS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters='/\\"'), min_size=1
).filter(lambda text: text == text.strip() and text[0] not in "\ufeff")


@given(
    paths=st.lists(PATHS, min_size=1, max_size=6),
    separator=st.sampled_from([" ", "\t", ",", "::"]),
    data=st.data(),
)
@MANY
def test_what_is_written_is_read(tmp_path, paths, separator, data):
    """Any path, whatever separators it holds itself, as long as the label is a number."""
    entries = [(f"{path}.mp4", data.draw(st.integers(0, 999))) for path in paths]
    file = tmp_path / "list.txt"
    text = "".join(f"{path}{separator}{label}\n" for path, label in entries)
    file.write_text(text, encoding="utf-8", newline="")
    read = list(read_path_list(file, tmp_path, Labels(None)))
    assert [(entry.path, entry.label) for entry in read] == entries
    assert [entry.line for entry in read] == list(range(1, len(entries) + 1))


@given(path=st.one_of(PATHS.map("{}.mp4".format), PATHS.map('"{}.mp4"'.format), st.text()))
@example(",").via("read as a comma and a space after it")
@example("a::")
@MANY
def test_what_a_check_writes_is_read(tmp_path, path):
    line = list_line(path, 7)
    if line is None:
        assert path.strip() != path or {"\n", "\r"} & {*path} or not path
        return
    file = tmp_path / "list.txt"
    file.write_bytes(f"a b.mp4 1\n{line}\n".encode("utf-8", "surrogateescape"))
    (_, entry) = read_path_list(file, tmp_path, Labels(None))
    assert (entry.path, entry.label) == (path, 7)


@pytest.mark.parametrize("separator", [" ", ",", "::"])
def test_labels_may_be_names_of_classes(make_files, write_list, content, separator):
    make_files("a b.mp4", "c.mp4")
    classes = ["tap dancing", "dancing", "riding (a) bike"]
    labels = ("c.mp4{}tap dancing", "c.mp4{}dancing", "a b.mp4{}riding_a_bike")
    file = write_list(*(line.format(separator) for line in labels))
    assert content(open_videos(file, classes=classes)) == [
        ("c.mp4", 0), ("c.mp4", 1), ("a b.mp4", 2)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"line 1 .*dancing"):
        open_videos(file)


def test_suffixes_may_be_missing_or_others(make_files, write_list, content, caplog):
    """As in the lists of mmaction2, whose files are of any kind."""
    make_files("c d/ID_000010_000020.mp4", "c d/v1.2.mkv", "c d/UP.MP4", "c d/x.flv", "c d/w.webm")
    file = write_list(
        "c d/ID_000010_000020 0", "c d/v1.2 1", "c d/UP 2", "c d/x.flv 3", "c d/w.mp4 4"
    )
    assert content(open_videos(file)) == [
        ("c d/ID_000010_000020.mp4", 0), ("c d/v1.2.mkv", 1), ("c d/UP.MP4", 2),
        ("c d/x.flv", 3), ("c d/w.webm", 4),
    ]  # fmt: skip
    assert not caplog.records


def test_missing_videos_are_counted_and_named(make_files, write_list, content, caplog, tmp_path):
    make_files("a.mp4")
    (tmp_path / "data" / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "data" / "loop.mp4").symlink_to("loop.mp4")
    file = write_list("gone.mp4 0", "no/b.mp4 1", "a.mp4 7", "a.mp4 7", "loop.mp4 0")
    videos = open_videos(file)
    assert content(videos) == [("a.mp4", 7)] * 2
    assert list(videos.missing) == ["gone.mp4", "no/b.mp4", "loop.mp4"]
    assert "3 of 5 videos" in caplog.text
    for line in ("gone.mp4 (line 1)", "no/b.mp4 (line 2)", "loop.mp4 (line 5)", "a.mp4 (line 4)"):
        assert line in caplog.text
    with pytest.raises(ValueError, match=r"no/"):
        open_videos(write_list("no/b.mp4 1", "c.mp4 1"))
