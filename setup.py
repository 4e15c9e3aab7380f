"""Packages and description of the distribution; everything else is in pyproject.toml.

A project keeps its package in `PROJECT/eva_NAME` and its recipes in `PROJECT/configs`. Here the
recipes become `eva_recipes.PROJECT`, and the builds of detectron2 and of mmcv's operators
`eva_recipes.third_party`: the files of the checkout, under a name that cannot shadow another
package.
"""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PROJECTS = sorted(path.parent.name for path in ROOT.glob("*/configs"))
RECIPES = {f"eva_recipes.{project}": f"{project}/configs" for project in PROJECTS}
BUILDS = ("detectron2", "mmcv_operators")
THIRD_PARTY = {f"eva_recipes.third_party.{name}": f"third_party/{name}" for name in BUILDS}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class FreshBuild(build_py):
    """A build without modules that an earlier one left in `build/lib`."""

    def run(self) -> None:
        """Empty the folder and build."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def description() -> str:
    """README.md without relative links, which lead nowhere outside the repository.

    They become absolute if pyproject.toml names the repository (`[project.urls]`, `Repository`),
    and their text otherwise.
    """
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    repository = urls.get("Repository", "").rstrip("/")

    def absolute(link: re.Match[str]) -> str:
        picture, label, target = link.groups()
        if re.match(r"[a-z]+:", target):
            return link[0]
        if not repository:
            return f"*{label}*" if picture else label
        return f"{picture}[{label}]({repository}/{'raw' if picture else 'blob'}/main/{target})"

    return LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


packages: dict[str, str] = {}
for folder in (".", "core", *PROJECTS, "tools"):
    for name in find_packages(str(ROOT / folder), include=["eva_*"]):
        packages[name] = f"{folder}/{name.replace('.', '/')}".removeprefix("./")

setup(
    cmdclass={"build_py": FreshBuild},
    long_description=description(),
    long_description_content_type="text/markdown",
    packages=[*packages, *RECIPES, *THIRD_PARTY],
    package_dir=packages | RECIPES | THIRD_PARTY,
    package_data={
        "*": ["py.typed"],
        "eva_backbone": ["checkpoints/*.csv", "weights/*.safetensors", "weights/*.json"],
        "eva_data": ["*.csv", "templates/*.j2"],
        "eva_report": ["*.j2"],
        "eva_command": ["*.j2"],
        "eva_contrastive": ["evaluation/*.toml"],
        **{name: ["**/*.py", "**/*.toml", "**/*.yaml"] for name in RECIPES},
        **{name: ["*.py", "*.toml"] for name in THIRD_PARTY},
    },
)
