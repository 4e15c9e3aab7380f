"""Pages of the documentation site: a hook of MkDocs, which `mkdocs.yml` names.

The site has the repository's pages under the paths that they have here, so that the same relative
links serve a checkout and the site. Generated are a page for each family of recipes, the model zoo,
the pages of the Python API, `llms.txt` and `llms-full.txt`.
"""

import ast
import html
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from eva_backbone.checkpoints.registry import TASKS as ZOO, list_official_files
from eva_runs.recipes import TASKS, Recipe, list_recipes

ROOT = Path(__file__).resolve().parents[1]
HOME = "site/index.md"  # in docs/; its links are those of the site's first page
_WIDE = (
    ("76.25em", "72em"),
    ("76.234375em", "71.984375em"),
)  # from where on the pages are on the left
OTHER_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
_TABLE = re.compile(r"<!-- registry table: begin -->.*?<!-- registry table: end -->", re.DOTALL)
_USE = {  # task of an official file -> command that begins with it
    "pretrain": "eva batch features photos --weights {name} --output output/features",
    "classification": "eva classification demo photos --weights {name} --output output/named",
    "clip": "eva batch features photos --weights {name} --output output/features",
    "detection": "eva detection evaluate RECIPE {name}",
    "segmentation": "eva segmentation demo RECIPE {name} photos --output output/found",
    "video": "eva video demo films --weights {name} --output output/named",
}


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation, and pages of docs/ that it does not name."""
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    navigation = str(config.nav)
    guides = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))
    sections["How to"] += [page for page in guides if page not in navigation]
    for task in TASKS:
        pages = [{family or "recipes": _page_of(task, family)} for family in families(task)]
        sections["Recipes"].append({task: pages})
    sections["Reference"] += [{name: _api_page(name)} for name in config.extra["reference"]]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Replace the files of docs/ by the pages of the repository and those that are generated."""

    def add(path: str, **content: str) -> None:
        files.append(File.generated(config, path, **content))

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
        path = "index.md" if file.src_uri == HOME else f"docs/{file.src_uri}"
        add(path, abs_src_path=file.abs_src_path)
    for path in (*OTHER_PAGES, *(f"{task}/README.md" for task in TASKS)):
        add(path, abs_src_path=str(ROOT / path))
        for link in _LINK.findall((ROOT / path).read_text(encoding="utf-8")):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
            if target not in files.src_uris and not target.endswith(".md"):
                add(target, abs_src_path=str(ROOT / target))
    files.src_uris["README.md"].dest_uri = "overview.html"  # the first page is one of its own
    add("zoo.md", content=model_zoo())
    for task in TASKS:
        for family, recipes in families(task).items():
            add(_page_of(task, family), content=recipe_page(task, family, recipes))
    for name, modules in config.extra["reference"].items():
        listing = "\n\n".join(f"::: {module}" for module in modules)
        add(_api_page(name), content=f"# {name}\n\n{listing}\n")
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Show the table of official files once, in the zoo; escaped pipes in code as GitHub does."""
    markdown = re.sub(r"`[^`\n]+`", lambda code: code[0].replace(r"\|", "|"), markdown)
    if page.file.src_uri == "docs/checkpoints.md":
        return _TABLE.sub("The [model zoo](../zoo.md) has the table.", markdown)
    return markdown


def on_env(env: Any, config: Any, files: Files) -> Any:
    """Write the pages as text for language models, in the order of the navigation."""
    index, full = [f"# {config.site_name}\n\n> {config.site_description}"], []
    section = ""
    page: Any = files.src_uris["index.md"].page
    while page:
        top = page.ancestors[-1].title if page.ancestors else section
        if top != section:
            section = top
            index.append(f"\n## {section}\n")
        index.append(f"- [{page.title}]({page.url})")
        content = page.markdown
        if "\n::: " in content:  # generated from docstrings: HTML as text, a line for each block
            content = re.sub(r"</(?:p|li|h\d|tr|pre|div)>", "\n", page.content)
            content = html.unescape(re.sub(r"<[^>]+>", "", content))
            content = re.sub(r"\n\s*\n+", "\n", content)
        full.append(f"<!-- {page.url} -->\n\n{content.strip()}\n")
        page = page.next_page
    for name, lines in (("llms.txt", index), ("llms-full.txt", full)):
        files.append(File.generated(config, name, content="\n".join(lines) + "\n"))
    return env


def on_post_build(config: Any) -> None:
    """Show the navigation on the left of narrower windows than the theme does."""
    for style in Path(config.site_dir, "assets/stylesheets").glob("*.css"):
        content = style.read_text(encoding="utf-8")
        for theirs, ours in _WIDE:
            content = content.replace(theirs, ours)
        style.write_text(content, encoding="utf-8")


def _api_page(name: str) -> str:
    return f"reference/{name.lower()}.md"


def _page_of(task: str, family: str) -> str:
    return f"recipes/{task}/{family or 'index'}.md"


def families(task: str) -> dict[str, list[Recipe]]:
    """Group the recipes of a task by their folder below its configs."""
    recipes: dict[str, list[Recipe]] = {}
    for recipe in list_recipes(task):
        recipes.setdefault(posixpath.dirname(recipe.name), []).append(recipe)
    return recipes


def recipe_page(task: str, family: str, recipes: list[Recipe]) -> str:
    """Make the page of a family: what the paper has, what was measured here, each recipe."""
    measured, memory = _measured(), _memory(task)
    small = "[own data](../../docs/command.md#own-data)"
    rows, parts = [], []
    for recipe in recipes:
        name = posixpath.basename(recipe.name)
        source = recipe.path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        match = re.search(r"This should give,?(.*?)(?:\n\n|\Z)", docstring, re.DOTALL)
        cells = (
            f"[`{name}`](#{name.lower()})",
            " ".join(match[1].split()).lstrip(":").strip() if match else "-",
            small if name.endswith("_small") else measured.get(name, "-"),
            memory.get(recipe.name, "-"),
        )
        rows.append(f"| {' | '.join(cells)} |")
        parts.append(
            f"## {name} {{ #{name.lower()} }}\n\n{docstring}\n\n"
            f"```bash\neva config {task}/{recipe.name} --copy mine    # to edit it\n```\n\n"
            f'??? note "Source"\n\n    ```python\n{textwrap.indent(source, "    ")}\n    ```\n'
        )
    title = f"{task}: {family or 'recipes'}"
    return (
        f"# {title}\n\nSettings and data: [the project](../../{task}/README.md). Figures under "
        "*should give* say whose they are; those of the paper and of the official code have not "
        "been reproduced here. Memory is that of a training step of one process in bf16, and the "
        "card it fits ([computed](../../docs/memory.md)).\n\n"
        '<div class="names" markdown>\n\n'
        "| recipe | should give | measured here | memory |\n"
        "|---|---|---|---|\n" + "\n".join(rows) + "\n\n</div>\n\n" + "\n".join(parts)
    )


def _measured() -> dict[str, str]:
    """Find the paragraphs with figures: recipe -> what follows `<!-- measured: RECIPE ... -->`."""
    paragraphs: dict[str, str] = {}
    for task in TASKS:
        content = (ROOT / task / "README.md").read_text(encoding="utf-8")
        content = _LINK.sub(rf"../../{task}/\1", content)
        for names, paragraph in re.findall(r"<!-- measured: (.*) -->\n([^|]+?)\n\n", content):
            paragraphs |= dict.fromkeys(names.split(), " ".join(paragraph.split()))
    return paragraphs


def _memory(task: str) -> dict[str, str]:
    """Read the table of docs/memory.md: recipe -> GiB in bf16 and card."""
    memory_cells: dict[str, str] = {}
    rows = re.findall(rf"^\| {task} (.*?) \|(.*)\|$", (ROOT / "docs/memory.md").read_text(), re.M)
    for names, cells in rows:
        *_, gib, card = (cell.strip() for cell in cells.split("|"))
        fits = "" if card == "-" else f", {card} GB"
        memory_cells |= dict.fromkeys(re.findall(r"`(.*?)`", names), f"{gib} GiB{fits}")
    return memory_cells


def model_zoo() -> str:
    """Make the page of the official files, from the registry of the backbone."""
    parts = [
        f"# Model zoo\n\nThe {len(list_official_files())} official files. Results are the "
        "authors', from the paper or the official READMEs and logs, **not measurements of this "
        "toolkit** ([notes](docs/checkpoints.md)). Every command that takes weights takes these "
        "names, and downloads a missing file once: `eva weights get NAME`.\n\n"
        '<div class="names" markdown>\n'
    ]
    for task in ZOO:
        entries = list_official_files(task)
        title = {"pretrain": "Pre-training", "clip": "CLIP"}.get(task, task.capitalize())
        parts.append(f"## {title}\n\n| file | ViT | px | GB | published | SHA-256 |")
        parts.append("|---|---|---:|---:|---|---|")
        parts += [
            f"| `{entry.name}` | {entry.variant} | {entry.resolution} | {entry.size_gb:g} "
            f"| {entry.result or '-'} | `{entry.sha256[:12]}` |"
            for entry in entries
        ]
        parts.append(f"\n```bash\n{_USE[task].format(name=entries[0].name)}\n```\n")
    return "\n".join([*parts, "</div>\n"])
