r"""Publish a run on the Hugging Face hub: weights, model card, recipe and scores.

    eva push output/coco someone/eva-coco --dry-run output/card   # look at it first
    eva push output/coco someone/eva-coco --private

RUN is the output folder of any training of this toolkit. The last weights are published, unless
--best is given: other commands take the best ones of a folder, where it has some. Published are
`model.safetensors`, without states of the optimizer; `README.md`, the model card; the settings of
the run; `results.json`. Logs stay at home, and so do the places of files and the names of user and
machine, which are taken out of all that is published. Needs `pip install eva-toolkit[hub]` and a
token of the hub (`hf auth login`, or HF_TOKEN).
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.hub import SCHEME, HubFile, parse_address
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import program, program_name, say


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=program_name("push_to_hub.py"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="output folder of a training")
    add("repository", metavar="ORG/NAME", help="repository on the hub; made if it is not there")
    add("--private", action="store_true", help="make the repository private")
    add("--dry-run", type=Path, metavar="DIR", help="write everything there and upload nothing")
    add("--overwrite", action="store_true", help="replace an earlier DIR")
    add("--best", action="store_true", help="weights of the best evaluation, not the last ones")
    add("--ema", action="store_true", help="the moving average of the weights")
    add("--licence", default="mit", help="licence of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        plain = parse_address(SCHEME + options.repository) == HubFile(options.repository)
    except ValueError:
        plain = False
    if not plain:
        parser.error(f"{options.repository!r} is not of the form ORG/NAME")
    return options


def _push(options: argparse.Namespace) -> int:
    # Here, so that the help needs no torch.
    from eva_data.files import replacing_folder, require_replaceable
    from eva_engine.publishing.publish import FILES, compose, read_run_folder
    from eva_engine.publishing.upload import upload

    run = read_run_folder(options.run, best=options.best, ema=options.ema)
    target = f"hf://{options.repository}"
    if options.dry_run is not None:
        require_replaceable(options.dry_run, FILES, overwrite=options.overwrite)
        with replacing_folder(options.dry_run) as folder:
            compose(run, options.repository, folder, licence=options.licence)
        say(f"wrote {options.dry_run}, which would be {target}; nothing was uploaded")
        return 0
    with tempfile.TemporaryDirectory(prefix="eva-push-") as name:
        compose(run, options.repository, Path(name), licence=options.licence)
        message = f"{run.task}, {run.unit} {run.step}"
        commit = upload(
            Path(name),
            options.repository,
            private=options.private,
            message=message,
            replaced=FILES,  # of an earlier push, perhaps of another kind of run
        )
    say(f"published {run.weights.name} ({run.unit} {run.step}) as {target}, commit {commit}")
    say(f"weights by address: {target}@{commit}")
    return 0


main = program(parse, _push, name="push_to_hub.py", interrupted="nothing was published")


if __name__ == "__main__":
    sys.exit(main())
