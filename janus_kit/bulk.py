"""The commands for many pictures: they lose nothing, and the same command goes on."""

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from janus_kit import console
from janus_kit.console import Load, Quiet, Verbose, with_model
from janus_kit.errors import OptionError, PromptError

if TYPE_CHECKING:
    from janus_kit.batch.rayed import Crew
    from janus_kit.batch.run import Outcome

__all__ = ["Json", "Part", "Retry", "World", "batch", "caption", "generate_file"]

batch = typer.Typer(no_args_is_help=True, help="Look after long runs.")

Json = Annotated[bool, typer.Option("--json", help="One line of JSON for each result.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a run's results.")]
Part = Annotated[
    str | None,
    typer.Option("--shard", help="i/n, from 0: do one of n parts, beside runs of the others."),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]
World = Annotated[
    int | None,
    typer.Option(min=1, help="How many processes a launcher must have started; else stop."),
]


@with_model
def caption(
    load: Load,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Pictures, folders, globs, tars, tables, data sets."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "--question",
            help="What to ask; TEXT, @FILE, or NAME=TEXT for a column of its own. Can be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder of the results. [beside the pictures]"),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Also the folders inside.")
    ] = False,
    pattern: Annotated[
        str | None, typer.Option("--glob", help="Of the files in folders, such as '*.jpg'.")
    ] = None,
    filelist: Annotated[
        Path | None, typer.Option("--filelist", help="A file with one path a line.")
    ] = None,
    all_files: Annotated[
        bool, typer.Option("--all-files", help="Files of folders with any ending.")
    ] = False,
    column: Annotated[
        str | None, typer.Option("--column", help="Of tables: the one with pictures or paths.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before each caption.")] = "",
    suffix: Annotated[str, typer.Option(help="Put behind each caption.")] = "",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest answer, in tokens. [512]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="1 keeps all tokens.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the random stream of each answer.")] = 0,
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="Questions at once; no answer depends on it.")
    ] = "auto",
    existing: Annotated[
        str, typer.Option(help="Captions that are there: skip, overwrite, append or prepend.")
    ] = "skip",
    ext: Annotated[str, typer.Option("--ext", help="The ending of caption files.")] = ".txt",
    sidecar_name: Annotated[
        str, typer.Option("--sidecar-name", help="stem: x.txt; full: x.png.txt.")
    ] = "stem",
    formats: Annotated[
        str | None,
        typer.Option("--format", help="Some of txt,jsonl,csv,parquet,webdataset,imagefolder."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Only the first so many.")] = None,
    retry_failed: Retry = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the pictures that would be captioned.")
    ] = False,
    shard: Part = None,
    world: World = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode, 0 for a thread; or Ray's models. [auto]"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: --workers models on a cluster's machines.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, such as auto. [one on this machine]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe pictures. Files alone are printed; a folder gets a caption file beside each picture.

    The text stands behind the file's name and a tab if there are several. With a folder, a tar, a
    table or --output the captions go to files, captions.jsonl among them, whose path is printed;
    a run that was cut short goes on when the same command is given again. {name}, {directory}
    and {caption} in a prompt, prefix or suffix stand for the file's name, its folder's, and the
    caption that was there.

    \b
    janus-kit caption out/*.png
    janus-kit caption photos --recursive --format txt,csv
    janus-kit caption photos --prompt "Describe it." --prompt "color=What color is it?" -o captions
    """
    given = paths or []
    if not given and filelist is None:
        raise typer.BadParameter("give a picture or a folder", param_hint="PATH")
    questions = _questions(prompt)
    writes: list[object] = [output, recursive, pattern, filelist, all_files, column]
    writes += [prefix, suffix, formats]
    writes += [limit is not None, retry_failed, dry_run, shard, world, existing != "skip"]
    writes += [ext != ".txt", sidecar_name != "stem", engine != "local", address]
    size: int | str = int(batch_size) if batch_size.isdecimal() else batch_size
    answers: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "batch_size": size,
    }
    if not any(writes) and all(_is_picture(path) for path in given):
        _print_captions(load, given, questions, answers, as_json)
        return
    if sidecar_name not in ("stem", "full"):
        raise OptionError(f"--sidecar-name must be stem or full, not {sidecar_name!r}")
    if engine not in ("local", "ray"):
        raise OptionError(f"--engine must be local or ray, not {engine!r}")
    if address is not None and engine != "ray":
        raise OptionError("--address is that of a Ray cluster; add --engine ray")
    from janus_kit import checkpoint, loading
    from janus_kit.batch import inputs
    from janus_kit.batch.captioning import CaptionOptions
    from janus_kit.batch.captions import run_captions, where
    from janus_kit.batch.run import Stop

    asked: dict[str, Any] = {"prompts": questions} if questions else {}
    options = CaptionOptions(
        **asked,
        prefix=prefix,
        suffix=suffix,
        existing=existing,
        ext=ext,
        full_names=sidecar_name == "full",
        formats=(formats or "txt").split(","),
        retry_failed=retry_failed,
        workers=workers if engine == "local" else None,
        **answers,
    )
    target = where([*given, *([filelist] if filelist else [])], output)
    root, items = inputs.find(
        given,
        recursive=recursive,
        pattern=pattern,
        filelist=filelist,
        all_files=all_files,
        column=column,
        skip=target,
        ext=ext,
    )
    items = items[:limit]
    part = _part(shard, world)
    if dry_run:
        for item in items:
            if part is None or part.has(item.name):
                console.result(item.name, {"file_name": item.name}, as_json)
        return
    folder, model = loading.locate(load.keywords)
    with Stop().listening() as stop:
        outcome = run_captions(
            lambda: _load_here(load) if engine == "local" else _crew(load, workers, address),
            model,
            items,
            root,
            target,
            options,
            longest=checkpoint.read_config(folder)[0].language.max_positions,
            shard=part,
            progress=not load.keywords["quiet"],
            stop=stop,
        )
    _end(outcome, as_json, part is not None and shard is None)


def generate_file(
    load: Load,
    table: Path,
    output: Path,
    options: dict[str, Any],
    shard: str | None,
    world: int | None,
    as_json: bool,
) -> None:
    """Draw a file of prompts; what generate does with --prompts."""
    from janus_kit import loading
    from janus_kit.batch.drawings import run_drawings
    from janus_kit.batch.run import Stop
    from janus_kit.batch.wishes import DrawOptions, read_prompts, usual

    DrawOptions(**options)  # tells at once what is wrong
    folder, model = loading.locate(load.keywords)
    chosen = DrawOptions(**{**usual(loading.drawing_defaults(folder)), **options})
    items = read_prompts(table, chosen)
    part = _part(shard, world)
    with Stop().listening() as stop:
        outcome = run_drawings(
            lambda: _load_here(load),
            model,
            table,
            items,
            output,
            chosen,
            shard=part,
            progress=not load.keywords["quiet"],
            stop=stop,
        )
    _end(outcome, as_json, part is not None and shard is None)


def _questions(prompts: Sequence[str] | None) -> list[str]:
    """The questions of --prompt, read from files where one says @FILE."""
    found = []
    for text in prompts or []:
        name, _, file = text.rpartition("@") if "=@" in text[:40] else ("", "", text[1:])
        if not (text.startswith("@") or name):
            found.append(text)
            continue
        try:
            read = Path(file).read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PromptError(f"{file}: is not UTF-8 text; save it as UTF-8") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise PromptError(f"{file}: cannot be read ({why}); @ names a prompt file") from error
        read = read.replace("\r\n", "\n").replace("\r", "\n").strip()
        if not read:
            raise PromptError(f"{file}: is empty; write the question into it")
        found.append(f"{name}{read}")
    return found


def _is_picture(path: str) -> bool:
    """Whether a path is neither a folder nor a file or pattern that stands for many pictures."""
    tables = (".tar", ".parquet", ".jsonl")
    pattern = any(sign in path for sign in "*?[") and not os.path.lexists(path)
    return not (Path(path).is_dir() or pattern or path.lower().endswith(tables))


def _print_captions(
    load: Load,
    paths: Sequence[str],
    questions: Sequence[str],
    answers: dict[str, Any],
    as_json: bool,
) -> None:
    """Captions of a few files on stdout."""
    from janus_kit.batch.captioning import CaptionOptions
    from janus_kit.batch.captions import caption_stream
    from janus_kit.errors import ImageError
    from janus_kit.pipeline import CAPTION

    if len(questions) > 1:
        raise OptionError("several questions fill a table; name its folder by --output")
    (question,) = CaptionOptions(prompts=questions or [CAPTION]).questions
    failed = False
    with closing(caption_stream(load(), paths, question, **answers)) as stream:
        for found in stream:
            if found.error is None:
                line = f"{found.item}\t{' '.join(found.text.split())}"
                line = found.text if len(paths) == 1 else line
                console.result(line, {"image": found.item, "caption": found.text}, as_json)
                continue
            if len(paths) == 1:
                raise ImageError(found.error)
            failed = True
            console.complain(found.error)
            if as_json:
                console.result("", {"image": found.item, "error": found.error}, True)
    if failed:
        raise typer.Exit(console.PARTLY)


def _part(shard: str | None, world: int | None) -> Any:
    """The shard that the options or a launcher name."""
    from janus_kit.batch.ledger import Shard
    from janus_kit.batch.run import ranks

    launched = ranks(world)
    if shard is not None and launched is not None:
        raise OptionError("--shard is given, but the launcher numbers the processes; leave it out")
    return Shard.parse(shard) if shard is not None else launched


def _load_here(load: Load) -> Any:
    """The pipeline, on the GPU that a launcher means for this process."""
    import torch

    place = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
    if load.keywords["device"] == "auto" and place.isdecimal() and torch.cuda.is_available():
        return load(device=f"cuda:{int(place) % torch.cuda.device_count()}")
    return load()


def _crew(load: Load, workers: int | None, address: str | None) -> "Crew":
    """Actors that will each load the model that the options name."""
    from janus_kit.batch.rayed import Crew

    given = load.keywords
    options = {name: given[name] for name in ("revision", "device", "quantization")}
    options |= {"dtype": given["dtype"] or "auto", "verify": not given["no_verify"]}
    name = given["model"]
    name = str(Path(name).resolve()) if name and Path(name).is_dir() else name
    return Crew({"model": name, "options": options}, 1 if workers is None else workers, address)


def _end(outcome: "Outcome", as_json: bool, launched: bool) -> None:
    """Tell how a run stands, and end with the code that says so.

    A launcher ends all processes when one has an error: only the last one tells of failed inputs.
    """
    console.log.warning("%s in %s", outcome, outcome.folder)
    if outcome.table is not None:
        console.result(str(outcome.table), outcome.record(), as_json)
    if outcome.signal:
        console.log.warning("stopped; the same command goes on")
        raise typer.Exit(128 + outcome.signal)
    if outcome.failed and not (launched and outcome.table is None):
        raise typer.Exit(console.PARTLY)


@batch.command()
def status(
    folder: Folder, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Show how many inputs are done, failed and pending, and why some failed.

    \b
    janus-kit batch status captions
    """
    from janus_kit.batch.upkeep import status as stand

    facts = stand(folder)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    reasons = facts.pop("reasons")
    typer.echo(console.lines(facts))
    for reason in reasons:
        typer.echo(f"failed: {reason}")


@batch.command()
def merge(folder: Folder, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Make one ledger of those of all shards; prints its path.

    The command that made them, without --shard, then writes the tables.

    \b
    janus-kit batch merge captions
    """
    from janus_kit.batch.upkeep import merge as unite

    typer.echo(unite(folder))


@batch.command()
def repair(folder: Folder, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Drop damaged lines from a ledger; prints how many. Their inputs are then done again.

    \b
    janus-kit batch repair captions
    """
    from janus_kit.batch.upkeep import repair as mend

    typer.echo(mend(folder))
