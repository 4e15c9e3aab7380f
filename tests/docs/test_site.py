"""The documentation site: complete, without a part from elsewhere, searched without a server."""

import re
import shutil

import pytest

from eva_backbone.checkpoints.registry import list_official_files
from eva_runs.recipes import TASKS, list_recipes

pytest.importorskip("material", reason="extra `docs`")


@pytest.fixture(scope="module")
def site(run_started, tmp_path_factory, request):
    """Folder of the site, built as `make docs` builds it: a broken link or anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = ("-m", "mkdocs", "build", "--strict", "--site-dir", folder)
    done = run_started(*build, folder=request.config.rootpath)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_pages_hold_all_recipes_files_and_public_names(site):
    for task in TASKS:
        pages = "".join(page.read_text() for page in (site / "recipes" / task).iterdir())
        for recipe in list_recipes(task):
            assert f'id="{recipe.path.stem.lower()}"' in pages, recipe.name
    zoo = (site / "zoo.html").read_text()
    assert all(f"<code>{entry.name}</code>" in zoo for entry in list_official_files())
    assert 'id="eva_backbone.VisionTransformer"' in (site / "reference/backbone.html").read_text()


def test_the_first_page_has_results_and_pages_of_the_api_have_tables_of_arguments(site):
    home = (site / "index.html").read_text()
    assert all(f"docs/images/{name}" in home for name in ("demo_nuclei.jpg", "app_detect.png"))
    arguments = (site / "reference/detection.html").read_text()
    assert re.search(r"<td[^>]*>\s*<code>score_threshold</code>", arguments)
    assert "predict_many" in (site / "reference/predictors.html").read_text()


def test_llms_txt_lists_the_pages_and_the_other_has_their_text(site):
    listed = re.findall(r"\]\((\S+)\)", (site / "llms.txt").read_text())
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert {*listed} == pages - {"404.html"}
    assert re.findall("^<!-- (.*html) -->$", (site / "llms-full.txt").read_text(), re.M) == listed


def test_no_page_takes_a_part_from_elsewhere(site):
    for page in site.rglob("*.html"):
        outside = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?((?:[a-z]+:|//)[^\s\">]+)"
        assert re.findall(outside, page.read_text()) == [], page


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium")
def test_search_from_a_file_finds_a_page_and_asks_nobody(site):
    asked, errors = [], []
    with pytest.importorskip("playwright.sync_api").sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else 0)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.locator("input[name=query]").press_sequentially("federated")
        results = page.locator(".md-search-result__link", has_text="federated")
        results.first.click(timeout=20_000)
        assert "federated" in page.text_content("article").lower()
        browser.close()
    assert errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
