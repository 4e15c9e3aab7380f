"""Lines of the demo in the terminal."""

import torch

from eva_contrastive.inference.ranking import Ranked
from eva_contrastive.inference.results import hits_table, ranking_lines
from eva_contrastive.inference.searching import Query


def test_long_sentences_are_shortened():
    text = "word " * 300
    (line, nothing) = hits_table(Query((text,), (), torch.zeros(1)), [], names={}).split("\n")
    assert line.startswith('"word word')
    assert line.endswith(" ...")
    assert len(line) == 100
    assert nothing == "  nothing was found"
    found = [Ranked(text=text, cosine=0.5, probability=1.0, time=None)]
    lines = ranking_lines(["a.png", "b.png"], [found, found])
    assert all(" ..." in line and len(line) < 130 for line in lines)
