"""The Space: its card, and its app with the weights of a run."""

from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

SPACE = Path(__file__).parents[2] / "tools/space"
PAGES = """
import runpy, sys
import gradio
from eva_app.server import build
models = runpy.run_path(sys.argv[1])["models"]
tabs = [one.label for one in build(models).blocks.values() if isinstance(one, gradio.Tab)]
assert tabs == ["Detect"], tabs
assert models.load(sys.argv[2]).categories
"""


@pytest.mark.slow
def test_the_space_shows_a_run(finished, run):
    card = SpaceCard.load(SPACE / "README.md").data
    assert (card.sdk, card.license) == ("gradio", "mit")
    assert len(card.short_description) <= 60
    *_, line = (SPACE / "requirements.txt").read_text().splitlines()
    assert Requirement(line).name == "eva-toolkit"
    pytest.importorskip("gradio", reason="needs gradio")
    weights = str(finished("detection"))
    run("python", "-c", PAGES, SPACE / card.app_file, weights, EVA_MODEL=weights)
