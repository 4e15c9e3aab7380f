"""Command line that ranks captions for pictures and videos, and searches folders of them."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_contrastive.config import MOST_VIDEO_FRAMES, VIDEO_FRAMES
from eva_data.files import (
    DEMO_IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    UnwritableError,
    make_folder,
    read_lines,
)
from eva_data.inputs import Job, Plan, plan_jobs
from eva_data.video.source import BACKENDS
from eva_engine.commands.options import add_arguments, add_device, add_weights, new_parser
from eva_report.demos import do_jobs, refuse, run_demo
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import say
from eva_runs.options import integer

if TYPE_CHECKING:
    from eva_contrastive.inference.features import ClipFeatures

RANKING = "ranking.json"
RESULTS = ("results.json", "results.csv", "contact_sheet.jpg")
_MOST_HITS, _MOST_QUERIES = 1000, 100
_EXAMPLES = """
Examples:

    python clip/demo.py rank cat.jpg dive.mp4 --weights eva_clip_psz14.pt \\
        --text "a photo of a cat" "a person who dives"

    python clip/demo.py search holiday/ --weights eva_clip_psz14.pt --output output/found \\
        --cache output/library --text "a dog in the snow" --like cat.jpg

`python clip/demo.py rank --help` and `search --help` have the options.
"""
_RANK = """
For each picture and video the first captions with their probability among all captions; OUTPUT
receives ranking.json with all of them, and their cosines. Of a video, frames spread over it are
averaged, and the time is that of the frame that fits best.
Files that cannot be read are named and skipped, and the exit code is then 1.
"""
_SEARCH = """
OUTPUT receives results.json, results.csv and contact_sheet.jpg. A score is the cosine of query and
picture, or of query and best frame of a video.
Features of the files are kept in a library in the folder CACHE: the next search computes new and
changed files only (by size and time of change), also after an interruption. Other weights,
--image-size, --frames or --precision have another library there.
Files that cannot be read are named and skipped, and the exit code is then 1.
"""


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = new_parser("clip/demo.py", "Compare pictures, videos and sentences.", epilog=_EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="rank | search")
    made = {}
    for name, purpose, about in (
        ("rank", "Rank captions for pictures and videos.", _RANK),
        ("search", "Search folders of pictures and videos by sentences and pictures.", _SEARCH),
    ):
        made[name] = one = commands.add_parser(
            name, help=purpose, description=purpose, epilog=about, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        one.add_argument("inputs", nargs="+", type=Path, metavar="INPUT",
                         help="picture, video, folder of both, or pattern")  # fmt: skip
        add_weights(one, kinds="of a complete EVA-CLIP")
        add = one.add_argument
        add("--text", nargs="+", action="extend", default=[], help="sentences")
        add("--texts", type=Path, metavar="FILE", help="text file, one sentence in each line")
        add("--frames", type=integer(1, MOST_VIDEO_FRAMES), default=VIDEO_FRAMES,
            help="of a video (default: %(default)s)")  # fmt: skip
        add("--backend", choices=BACKENDS, default=BACKENDS[0],
            help="decoder (default: %(default)s)")  # fmt: skip
        add("--overwrite", action="store_true", help="replace earlier results")
    _add_rank(made["rank"])
    _add_search(made["search"])
    return parser, made


def _add_rank(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", type=Path, help=f"folder for {RANKING} (default: only the lines)")
    add("--top", type=integer(1), default=10, help="captions of a file (default: %(default)s)")
    add("--batch-size", type=integer(1), default=32, help="default: %(default)s")
    add_device(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--like", nargs="+", action="extend", default=[], type=Path, metavar="FILE",
        help="pictures or videos")  # fmt: skip
    add("--together", action="store_true", help="all sentences and pictures are one query")
    add("--output", required=True, type=Path, help="folder for the results")
    add("--cache", type=Path, help="folder of the library (default: OUTPUT)")
    add("--top", type=integer(1, _MOST_HITS), default=20, help="hits (default: %(default)s)")
    add_arguments(parser, batch_size=32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of `clip/demo.py`.

    Args:
        arguments: Arguments in place of those of the process.
    """
    _, parsers = parser = _parser()
    args = parser[0].parse_args(arguments)
    own = parsers[args.command]
    searching = args.command == "search"
    results = [args.output / name for name in RESULTS] if searching else []
    if not searching and args.output is not None:
        results = [args.output / RANKING]
    work: Callable[..., list[str]] = _search if searching else _rank
    run_demo(
        own,
        prepare=lambda: _plan(args, searching=searching),
        work=lambda planned: work(own, args, planned.jobs),
        overwrite=args.overwrite,
        results=results,
    )


def _plan(args: argparse.Namespace, *, searching: bool) -> Plan:
    if args.texts is not None:
        args.text = [*args.text, *read_lines(args.texts)]
    if blank := [text for text in args.text if not text.strip()]:
        raise ValueError(f"--text {blank[0]!r} is blank: write a sentence")
    results = [args.output] if args.output is not None else []
    if searching:
        args.cache = args.cache or args.output
        results.append(args.cache)
        queries = len(args.text) + len(args.like)
        if not queries:
            raise ValueError("there is nothing to look for: give --text, --texts or --like")
        if queries > _MOST_QUERIES:
            raise ValueError(f"there are {queries} queries: give at most {_MOST_QUERIES} at once")
        if missing := [file for file in args.like if not file.is_file()]:
            raise ValueError(f"--like {missing[0]} is not a file")
    elif not args.text:
        raise ValueError("there are no captions: give --text or --texts")
    return plan_jobs(
        args.inputs,
        suffixes=DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES,
        targets=lambda name: [],
        results=results,
        kinds="pictures and no videos",
    )


@contextlib.contextmanager
def _one_sentence(parser: argparse.ArgumentParser) -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:
        sys.exit(f"{parser.prog}: {error}")
    except UnwritableError:  # of the output, which `run_demo` explains
        raise
    except (ValueError, OSError) as error:
        refuse(parser, error)


def _load(args: argparse.Namespace) -> "ClipFeatures":
    from eva_contrastive.model.open_clip_program import weights_file

    weights_file(args.weights)  # a mistyped name is answered before torch is imported
    from eva_contrastive.inference.features import ClipFeatures

    names = ("image_size", "mean", "std", "frames", "batch_size", "device", "precision", "backend")
    return ClipFeatures.from_weights(args.weights, **{name: getattr(args, name) for name in names})


def _settings(args: argparse.Namespace, clip: "ClipFeatures") -> dict[str, Any]:
    return {
        "weights": args.weights, "image_size": clip.image_size, "mean": clip.mean, "std": clip.std,
        "frames": args.frames, "precision": str(clip.dtype).removeprefix("torch."),
    }  # fmt: skip


def _rank(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    with _one_sentence(parser):
        clip = _load(args)
        features = clip.texts(args.text)
    from eva_contrastive.inference.ranking import Ranked, rank
    from eva_contrastive.inference.results import ranking_lines, write_ranking

    if args.output is not None:
        make_folder(args.output)  # fails now, not after hours
    found: list[tuple[str, list[Ranked]]] = []
    names: list[str] = []
    problems: dict[str, str] = {}

    def do(job: Job) -> str | None:
        try:
            ranked = rank(clip, job.source, args.text, features)[: args.top]
        except (OSError, FloatingPointError) as error:
            problems[str(job.source)] = str(error)
            return str(error)
        found.append((str(job.source), ranked))
        names.append(job.name)
        return None

    sentences = do_jobs(jobs, do, title="ranking")
    for line in ranking_lines(names, [ranked for _, ranked in found]):
        say(line)
    if args.output is not None:
        write_ranking(args.output / RANKING, found, problems, _settings(args, clip))
        say(f"output   {args.output / RANKING}")
    return sentences


def _search(
    parser: argparse.ArgumentParser, args: argparse.Namespace, jobs: Sequence[Job]
) -> list[str]:
    with _one_sentence(parser):
        clip = _load(args)
        from eva_contrastive.inference.searching import make_queries

        queries = make_queries(clip, texts=args.text, like=args.like, together=args.together)
    from eva_backbone.checkpoints.verification import sha256_of
    from eva_contrastive.inference import indexing, results, searching
    from eva_contrastive.inference.library import Library
    from eva_contrastive.model.open_clip_program import weights_file
    from eva_runs.output_folder import locked

    settings = _settings(args, clip)
    make_folder(args.output)
    known = settings | {"weights": sha256_of(weights_file(args.weights))}
    with _one_sentence(parser), locked(args.cache):
        library = Library(args.cache, known, width=clip.embed_dim)
        library.load()
        changes = indexing.update(
            library, clip, [job.source for job in jobs], workers=args.workers,
            folders=[folder for folder in args.inputs if folder.is_dir()],
        )  # fmt: skip
    paths = dict.fromkeys(indexing.absolute(job.source) for job in jobs)
    hits = searching.search(
        library, [path for path in paths if path in library], queries, top=args.top
    )
    found = list(zip(queries, hits, strict=True))
    names = {indexing.absolute(job.source): job.name for job in jobs}
    for query, of_query in found:
        say(results.hits_table(query, of_query, names=names))
    say(results.library_line(changes))
    results.write_hits(args.output, found, changes.problems, settings, names=RESULTS[:2])
    results.write_sheet(args.output / RESULTS[2], found, backend=args.backend)
    say(f"output   {args.output} ({', '.join(reversed(RESULTS))})")
    return list(changes.problems.values())


if __name__ == "__main__":
    main()
