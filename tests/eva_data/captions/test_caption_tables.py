"""Tables of pairs: separators, quotes, line breaks, columns, and lines that are not of the form."""

import csv
import io

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from eva_data.captions.lists import LEFT_OUT, pairs_of_list
from eva_data.captions.sources import open_captions
from eva_data.checks.findings import Findings


def read(file, image=None, caption=None):
    left_out = Findings(LEFT_OUT)
    pairs = list(pairs_of_list(file, left_out, split=None, image=image, caption=caption))
    return pairs, {one["kind"]: one["ids"] for one in left_out.as_json()}


@pytest.fixture
def table(tmp_path):
    """Function: write a table and read it; gives the pairs, and what is left out by kind."""

    def run(content, **columns):
        file = tmp_path / "t.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(file, **columns)

    return run


TEXT = st.text(
    st.one_of(
        st.sampled_from("ab \"'\t,;|\n\r\\"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip())


@settings(max_examples=150, deadline=None)
@given(
    captions=st.lists(TEXT, min_size=1, max_size=6),
    separator=st.sampled_from("\t,;|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    extra=st.booleans(),
)
def test_what_csv_writes_is_read(
    tmp_path_factory, captions, separator, ends, quoting, encoding, extra
):
    file = tmp_path_factory.mktemp("t") / "t.csv"
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=ends, quoting=quoting)
    writer.writerow([*(["id"] if extra else []), "filepath", "title"])
    for number, caption in enumerate(captions):
        writer.writerow([*([number] if extra else []), f"{number}.png", caption])
    file.write_bytes(stream.getvalue().encode(encoding))
    expected = [(f"{n}.png", caption.strip()) for n, caption in enumerate(captions)]
    assert read(file) == (expected, {})


def test_several_captions_of_a_picture_are_several_lines(pictures, listed):
    file = pictures / "captions.txt"
    file.write_text("image,caption\n1.png,a\n0.png,b\n1.png,c\n0.png,d\n1.png,a\n")
    pairs = open_captions(file)
    assert listed(pairs) == [("1.png", "a", "c", "a"), ("0.png", "b", "d")]
    assert pairs.image(0).getpixel((0, 0))[0] == 1
    file.write_text("image,caption\n1.png,a\n1.png,c\n1.png,a\n0.png,b\n0.png,d\n")
    again = open_captions(file)
    assert listed(again) == listed(pairs)
    assert again.checksum() == pairs.checksum()
    file.write_text("image,caption\n1.png,a\n1.png,c\n0.png,a\n0.png,b\n0.png,d\n")
    assert open_captions(file).checksum() != pairs.checksum()


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("filepath\ttitle\na.jpg\ta, b\n", [("a.jpg", "a, b")]),
        ("image| comment_number| comment\na.jpg| 0| A dog .\n", [("a.jpg", "A dog .")]),
        ("url,caption,filepath,title\nu,c,a.jpg,t\n", [("a.jpg", "t")]),
        ('filepath\ttitle\na.jpg\t6" pipe\nb.jpg\t"6"" pipe"\n', [("a.jpg", '6" pipe'),
                                                                 ("b.jpg", '6" pipe')]),
        ("filepath,title\n\n\na.jpg,t,,\n", [("a.jpg", "t")]),
        ("filepath,title\ra.jpg,t", [("a.jpg", "t")]),
        ('"file path","my, text"\na.jpg,t\n', [("a.jpg", "t")]),
    ],
)  # fmt: skip
def test_forms_of_tables(table, content, pairs):
    columns = {"image": "file path", "caption": "my, text"} if "file path" in content else {}
    assert table(content, **columns) == (pairs, {})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("a.jpg", "malformed"),
        ("a.jpg, \t", "empty"),
        (",text", "unpictured"),
        ("a path,of,three", "malformed"),  # the separator is in which of them?
        ('a.jpg,"open', "malformed"),
        ('a.jpg,"closed" too early', "malformed"),
        ('"a.jpg', "malformed"),
        (b"a.jpg,caf\xe9", "encoding"),
    ],
)
@pytest.mark.parametrize("after", ["b.jpg,last\n", 'b.jpg,"last"\n'])
def test_lines_that_are_not_pairs_are_counted_and_harm_no_other(table, line, kind, after):
    """An open quote would swallow the next lines, and give a caption to a wrong picture."""
    line = line if isinstance(line, bytes) else line.encode()
    pairs, left_out = table(b"image,caption\nz.jpg,first\n" + line + b"\n" + after.encode())
    assert pairs == [("z.jpg", "first"), ("b.jpg", "last")]
    assert [*left_out] == [kind]
    assert "t.csv, line 3" in left_out[kind][0]
