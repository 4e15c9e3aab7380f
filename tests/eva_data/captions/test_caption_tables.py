"""Tables of pairs: separators, quotes, line breaks, columns, and lines that are not of the form."""

import csv
import io
import logging

import hypothesis.strategies as st
import pandas
import pytest
from hypothesis import given, settings

from eva_data.captions.lists import LeftOut, pairs_of_list
from eva_data.captions.opening import open_captions
from eva_data.tables import LONGEST

SEPARATORS = ("\t", ",", ";", "|")


def read(file, image=None, caption=None):
    left_out = LeftOut()
    pairs = pairs_of_list(file, left_out, split=None, image=image, caption=caption)
    return list(pairs), left_out


@pytest.fixture
def table(tmp_path):
    """Function: write a table and read it; gives the pairs, and what is left out by kind."""

    def run(content, **columns):
        file = tmp_path / "t.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        pairs, left_out = read(file, **columns)
        names = {
            kind: [name.removeprefix(f"{file}, ") for name in names]
            for kind, names in left_out.names.items()
        }
        return pairs, names

    return run


TEXT = st.text(
    st.one_of(
        st.sampled_from("ab \"'\t,;|\n\r\\"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip())


@settings(max_examples=300, deadline=None)
@given(
    captions=st.lists(TEXT, min_size=1, max_size=6),
    separator=st.sampled_from(SEPARATORS),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.booleans(),
    extra=st.booleans(),
)
def test_what_csv_writes_is_read(tmp_path_factory, captions, separator, ends, quoting, bom, extra):
    file = tmp_path_factory.mktemp("t") / "t.csv"
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=ends, quoting=quoting)
    writer.writerow([*(["id"] if extra else []), "filepath", "title"])
    for number, caption in enumerate(captions):
        writer.writerow([*([number] if extra else []), f"{number}.png", caption])
    file.write_bytes(stream.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    pairs, left_out = read(file)
    assert pairs == [(f"{n}.png", caption.strip()) for n, caption in enumerate(captions)]
    assert not left_out.counts


@settings(max_examples=100, deadline=None)
@given(captions=st.lists(TEXT, min_size=1, max_size=6), separator=st.sampled_from(SEPARATORS))
def test_what_pandas_writes_is_read_as_pandas_reads_it(tmp_path_factory, captions, separator):
    """open_clip reads its tables by `pandas.read_csv(file, sep=...)`."""
    file = tmp_path_factory.mktemp("t") / "t.csv"
    frame = pandas.DataFrame({"filepath": ["a.jpg"] * len(captions), "title": captions})
    frame.to_csv(file, sep=separator, index=False)
    again = pandas.read_csv(
        file, sep=separator, keep_default_na=False, dtype=str, lineterminator="\n"
    )
    pairs, left_out = read(file)
    assert not left_out.counts
    if not any("\r" in caption for caption in captions):  # pandas changes it
        assert [caption for _, caption in pairs] == [text.strip() for text in again["title"]]


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
        ("image,caption\na.jpg,a, b, c\n", [("a.jpg", "a, b, c")]),  # of Flickr30k's Kaggle file
        ('image,caption\na.jpg,he said "a, b" ,c\n', [("a.jpg", 'he said "a, b" ,c')]),
        ("image| comment_number| comment\na.jpg| 0| A dog .\n", [("a.jpg", "A dog .")]),
        ("Text;FILE\nx;a.jpg\n", [("a.jpg", "x")]),
        ("url,caption,filepath,title\nu,c,a.jpg,t\n", [("a.jpg", "t")]),
        ('title,filepath\n"a\r\nb",a.jpg\r\n', [("a.jpg", "a\r\nb")]),
        ('filepath\ttitle\na.jpg\t6" pipe\nb.jpg\t"6"" pipe"\n', [("a.jpg", '6" pipe'),
                                                                 ("b.jpg", '6" pipe')]),
        ("filepath,title\n\n  \na.jpg,t,,\n", [("a.jpg", "t")]),
        ("filepath,title\na.jpg,t", [("a.jpg", "t")]),
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
        ("a.jpg,", "empty"),
        ("a.jpg, \t", "empty"),
        (",text", "unpictured"),
        ("a path,of,three", "malformed"),  # the separator is in which of them?
        ('a.jpg,"open', "malformed"),
        ('a.jpg,"closed" too early', "malformed"),
        ('a.jpg,"x" "y"', "malformed"),
        ('"a.jpg', "malformed"),
        (b"a.jpg,caf\xe9", "encoding"),
        ("a.jpg," + "a" * (LONGEST + 1), "long"),
    ],
)
@pytest.mark.parametrize("after", ["b.jpg,last\n", 'b.jpg,"last"\n'])
def test_lines_that_are_not_pairs_are_counted_and_harm_no_other(table, line, kind, after):
    """An open quote would swallow the next lines, and give a caption to a wrong picture."""
    line = line if isinstance(line, bytes) else line.encode()
    pairs, left_out = table(b"image,caption\nz.jpg,first\n" + line + b"\n" + after.encode())
    assert pairs == [("z.jpg", "first"), ("b.jpg", "last")]
    assert {kind: [name[:6] for name in names] for kind, names in left_out.items()} == {
        kind: ["line 3"]
    }


def test_an_open_quote_does_not_take_half_of_the_table(table):
    rows = "".join(f"{number}.jpg,text {number}\n" for number in range(1000))
    pairs, left_out = table('image,caption\na.jpg,"open\n' + rows + 'b.jpg,10"\n')
    assert [path for path, _ in pairs] == [*(f"{n}.jpg" for n in range(1000)), "b.jpg"]
    assert pairs[-1][1] == '10"'
    assert left_out == {"malformed": ["line 2"]}
    # paths without a picture's suffix give no hint: the quote ends where the next one begins
    rows = "".join(f"{number},text {number}\n" for number in range(100_000))
    pairs, left_out = table('image,caption\na,"open\n' + rows)
    assert len(pairs) == 100_000
    assert left_out == {"malformed": ["line 2"]}


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", {}, "is empty: its first line must name its columns"),
        (
            "a,b\n1,2\n",
            {},
            "the columns a, b, and none for the path of the image .*filepath, image",
        ),
        ("filepath\n", {}, "has the columns filepath, and none for the caption .*title, caption"),
        ("image,caption\n", {"image": "pic"}, "expected one of pic"),
        ("image,caption\n", {"caption": "image"}, "one column for both, image"),
        (b"\xff\xfei\0m\0a\0g\0e\0", {}, "is not text in UTF-8 .*maybe in UTF-16.: save it as"),
        ("image,caption\ra.jpg,x\r", {}, "ends its lines by CR alone: save it with LF"),
    ],
)
def test_tables_without_the_columns(table, content, columns, message):
    with pytest.raises(ValueError, match=message):
        table(content, **columns)


def test_a_table_from_the_outside(pictures, tmp_path, listed, caplog):
    """Another folder for the pictures, full paths, missing pictures, no pair, wrong names."""
    file = tmp_path / "t.tsv"
    file.write_text(f"filepath\ttitle\n1.png\ta\n{pictures}/2.png\tb\nno.png\tc\n\0.png\td\n")
    pairs = open_captions(file, root=pictures, image_column="", caption_column="")
    assert [line[1] for line in listed(pairs)] == ["a", "b", "c", "d"]
    assert pairs.image(1).getpixel((0, 0))[0] == 2
    for number, message in ((2, r"no\.png is not there"), (3, "embedded null byte")):
        with pytest.raises(OSError, match=message):
            pairs.image(number)
    file.write_text("filepath\ttitle\nx.png\ta\ny.png\tb\n")
    with pytest.raises(ValueError, match=r"none of 2 pairs .*/x\.png is not there; is the folder"):
        open_captions(file)
    with pytest.raises(ValueError, match="root must be the folder of the images, and there is"):
        open_captions(file, root=tmp_path / "no")
    file.write_text("filepath\ttitle\nx.png\t \n")
    with pytest.raises(ValueError, match=r"holds no pair .*1 x empty, such as .*line 2, x\.png"):
        open_captions(file)
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match=r"there is no .*q\.csv"):
        open_captions(tmp_path / "q.csv")


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_caption_of_several_lines_before_its_path(tmp_path, separator):
    """Its last line looks like a row of its own: half a caption would go to the picture."""
    file = tmp_path / "t.csv"
    rows = [["one\ntwo", "a.jpg"], ['"so"\nhe\nsaid', "b.jpg"], ["plain", "c.jpg"]]
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=separator).writerows([["title", "filepath"], *rows])
    pairs, left_out = read(file)
    assert pairs == [(path, caption) for caption, path in rows]
    assert not left_out.counts
