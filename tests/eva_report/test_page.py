"""The page of a report: escaped, self-contained, within its limit, complete or not there."""

import os
import re
import signal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eva_report import page as pages
from eva_report.content import (
    Confusion,
    Curve,
    Curves,
    Example,
    Gallery,
    Link,
    NextStep,
    Report,
    ScoreRow,
    ScoreTable,
    Table,
    TitledImage,
)
from eva_report.page import NAME, close_run, render_page, try_report
from eva_runs.interruption import SIGNALS

EVIL = "\"'><script>alert(1)</script><img src=http://x/y onerror=z>\udcff\u202e\0"
VOID = {"meta", "link", "img", "input"}


class Checker(HTMLParser):
    """Elements, attributes and text of a page; every element has to be closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._open = [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def picture(side=40, colour=(200, 30, 30), title="truth"):
    return TitledImage(title=title, image=Image.new("RGB", (side, side), colour))


def noise():
    values = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image = Image.fromarray(values).resize((400, 400), Image.Resampling.BICUBIC)
    return TitledImage(title="truth", image=image)


def gallery(count, make, title="Worst cases"):
    examples = [Example(caption=f"{n}.jpg", images=[make(), make()]) for n in range(count)]
    return Gallery(title=title, examples=examples, text="By score.")


def report(*sections, **more):
    given = {"title": "Detection", "summary": "AP 41.2.", "facts": [("seed", "1")]}
    return Report(**{**given, "sections": sections, **more})


PLOT = Curves(title="Loss", x_label="", y_label="", curves=[Curve(name="", points=[(0, 1)])])
SCORES = ScoreTable(
    title="Scores",
    columns=["box", "mask"],
    rows=[
        ScoreRow(name="AP", values=[41.23, 38.0], meaning="mean over IoU 0.50 to 0.95"),
        ScoreRow(name="APl", values=[None, float("nan")], meaning="there are no large objects"),
    ],
)


def test_text_of_every_part_is_escaped(tmp_path):
    (tmp_path / "file").write_text("")
    row = ScoreRow(name=EVIL, values=[1.0], meaning=EVIL)
    curve = Curve(name=EVIL, points=[(0, 1), (1, 2)])
    example = Example(caption=EVIL, images=[picture(title=EVIL)])
    told = {"title": EVIL, "text": EVIL}
    sections = [
        ScoreTable(columns=[EVIL], rows=[row], **told),
        Table(heads=[EVIL], rows=[[EVIL]] * 300, complete_in=EVIL, **told),
        Curves(x_label=EVIL, y_label=EVIL, curves=[curve], **told),
        *(
            Confusion(
                classes=[EVIL] * size,
                counts=np.tile([[3, 1], [2, 4]], (size // 2, size // 2)),
                unit=EVIL,
                complete_in=EVIL,
                **told,
            )
            for size in (2, 100)
        ),
        Gallery(examples=[example], legend=[(EVIL, (1, 2, 3))], **told),
    ]
    text = render_page(
        report(
            *sections,
            title=EVIL,
            summary=EVIL,
            facts=[(EVIL, EVIL), ("command", EVIL)],
            links=[Link(title=EVIL, path=Path("file"))],
            next_steps=[NextStep(text=EVIL, command=EVIL)],
        ),
        tmp_path,
    )
    checked = Checker(text)
    assert not checked.all("script")
    assert {frozenset(one) - {"class"} for one in checked.all("img")} == {
        frozenset({"width", "height", "alt", "src"})
    }
    assert not any(name.startswith("on") for _, one in checked.elements for name in one)
    assert checked.words.count(r"onerror=z>\udcff\u202e\x00") > 30
    assert "\0" not in text
    assert "\u202e" not in text
    text.encode()  # nothing that is not UTF-8


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    text = render_page(report(SCORES, gallery(2, picture)), tmp_path)
    checked = Checker(text)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    first, second = checked.all("meta")[:2]
    assert first == {"charset": "utf-8"}
    assert second == {"http-equiv": "Content-Security-Policy", "content": policy}
    for _, attributes in checked.elements:
        for name in ("src", "href", "data", "action", "srcset"):
            assert re.match("data:|#|$", attributes.get(name, ""))
    assert not re.search(r"url\(|@import|https?:", text)


def test_links_are_relative_and_quoted_and_lead_to_files(tmp_path):
    odd = os.fsdecode(b"b \xff#?%.pth")
    for name in (odd, "javascript:alert(1)"):
        (tmp_path / name).write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("")
    paths = [odd, "missing.pth", "javascript:alert(1)", "run/log.txt", tmp_path / "run", "../none"]
    links = [Link(title=f"title {n}", path=Path(path)) for n, path in enumerate(paths)]
    addresses = [
        one["href"] for one in Checker(render_page(report(links=links), tmp_path)).all("a")
    ]
    files = [one for one in addresses if not one.startswith("#")]
    assert files == ["b%20%FF%23%3F%25.pth", "javascript%3Aalert%281%29", "run/log.txt", "run"]


def test_pictures_become_smaller_and_then_fewer(tmp_path):
    both = report(gallery(1, noise), gallery(3, noise, "Best"))
    complete, bare = len(render_page(both, tmp_path).encode()), 13_000
    most, few = (round((complete - bare) * part) + bare for part in (0.7, 0.15))
    for limit, least, highest in ((most, 4, 4), (few, 1, 3), (bare, 0, 0)):
        text = render_page(both, tmp_path, limit=limit)
        assert len(text.encode()) <= limit
        checked = Checker(text)
        shown = len(checked.all("img")) // 2
        assert least <= shown <= highest
        assert "the images are smaller" in checked.words.lower()
        assert f"below {limit / 1e6:g} MB" in checked.words
        assert ("of 3 are shown" in checked.words) == (shown < 4)
        assert "Worst cases" in checked.words  # each gallery has its share


def test_the_page_is_written_completely_or_not_at_all(tmp_path, monkeypatch, caplog):
    assert try_report(tmp_path, lambda: report(title="first"))
    monkeypatch.setattr(pages, "plot_view", lambda _: 1 / 0)
    broken = report(PLOT, title="second")
    assert try_report(tmp_path, lambda: broken) is None
    assert "no report.html in" in caplog.text
    assert "first" in (tmp_path / NAME).read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]
    assert try_report(tmp_path / "new", lambda: report()) == tmp_path / "new" / NAME


@pytest.mark.parametrize("checkpoint", ["checkpoints/step_00000008", "model_final.pth"])
def test_a_page_that_lacks_the_last_steps_is_written_by_a_start_that_has_none(tmp_path, checkpoint):
    """A kill has come between them."""

    def close(title):
        make, last = (lambda: report(title=title)), {"scores": "", "weights": None}
        close_run(tmp_path, "training", make, began=None, next_command=lambda: None, **last)
        return (tmp_path / NAME).read_text()

    (tmp_path / checkpoint).mkdir(parents=True)
    assert "first" in close("first")
    assert "first" in close("second")
    os.utime(tmp_path / checkpoint, ns=(0, (tmp_path / NAME).stat().st_mtime_ns + 1))
    assert "third" in close("third")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_report_and_not_the_run(tmp_path, caplog, number):
    def interrupted():
        signal.raise_signal(number)
        return report()

    handlers = {one: signal.signal(one, signal.SIG_DFL) for one in SIGNALS}
    try:
        assert try_report(tmp_path, interrupted) is None
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert "a signal ended its writing" in caplog.text
    assert list(tmp_path.iterdir()) == []
