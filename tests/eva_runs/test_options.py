"""Options that are numbers: what they take, and the sentence for what they do not."""

import argparse
import os

import pytest

from eva_backbone.checkpoints import hub
from eva_runs.options import add_download_option, integer, number, probability


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (integer(1), "0"),
        (integer(0, 512), "1000000"),
        (integer(1), "many"),
        (integer(1), "2.5"),
        (integer(1), "9" * 5000),
        (number(0), "-0.1"),
        (number(0), "nan"),
        (number(0), "inf"),
        (probability, "1.5"),
        (probability, "nan"),
    ],
)
def test_another_value_is_refused_by_its_value(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"got {text[:20]}"):
        kind(text)


def test_no_download_reaches_this_process_and_those_it_starts(monkeypatch):
    monkeypatch.delenv("EVA_NO_DOWNLOAD")
    parser = argparse.ArgumentParser()
    add_download_option(parser)
    assert vars(parser.parse_args([])) == {}
    assert "EVA_NO_DOWNLOAD" not in os.environ
    assert vars(parser.parse_args(["--no-download"])) == {}  # settings that are compared stay
    assert os.environ["EVA_NO_DOWNLOAD"] == "1"
    assert hub.NO_DOWNLOAD == "EVA_NO_DOWNLOAD"
    assert "EVA_NO_DOWNLOAD" in hub.why_offline()
