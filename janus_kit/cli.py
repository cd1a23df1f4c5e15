"""The command line: parse, call one function, print. What is heavy is imported by the commands."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from janus_kit import bulk, console, host, score, timing, train
from janus_kit.console import Load, Quiet, Revision, Verbose, with_model
from janus_kit.errors import OptionError, PromptError

if TYPE_CHECKING:
    from janus_kit.metadata import Settings
    from janus_kit.pipeline import JanusPipeline

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take half of the time that --help needs
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(bulk.caption)
app.command()(host.demo)
app.command()(host.serve)
app.command()(timing.bench)
app.add_typer(bulk.batch, name="batch")
app.add_typer(train.app, name="train")
app.add_typer(score.app, name="score")


def main() -> None:
    """Run the command line and end the process with its exit code."""
    with console.session():
        app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"janus-kit {version('janus-kit')}")
        raise typer.Exit


Length = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]


@app.callback()
def janus_kit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Draw pictures with DeepSeek's Janus models, and ask them about pictures.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 unexpected, 2 wrong use,
    3 some items failed, 4 the model cannot be loaded, 5 out of disk or memory.
    """


@app.command()
@with_model
def generate(
    load: Load,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Texts, @FILE with one a line, or - for stdin."),
    ] = None,
    num: Annotated[
        int,
        typer.Option(
            "--num", "--samples", "-n", min=1, max=100_000, help="Pictures for each prompt."
        ),
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Of the first picture; the next ones count on. [random]")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="1 switches it off. [5, or the model's]")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest code. [1, or the model's]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0 keeps all codes. [0]")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 keeps all codes. [1]")] = None,
    negative: Annotated[
        str | None, typer.Option(help="What to draw away from; Janus was not trained for it.")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Draw so many for each prompt and keep the --num best, ranked."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Draw this PNG again; what else is given replaces its own."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help="A .txt, .jsonl, .csv or .parquet; the same command goes on later."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder; nothing there is replaced.")
    ] = Path("out"),
    grid: Annotated[bool, typer.Option("--grid", help="Also write all on one sheet.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures at once. [auto]")] = None,
    retry_failed: bulk.Retry = False,
    existing: Annotated[
        str,
        typer.Option(
            help="Drawings of --prompts by other options: skip refuses, overwrite replaces."
        ),
    ] = "skip",
    shard: bulk.Part = None,
    world: bulk.World = None,
    as_json: bulk.Json = False,
) -> None:
    """Draw pictures; prints the path of each, or with --prompts that of the list of them.

    A table of prompts may have the columns negative_prompt, seed (else from 0 on) and guidance.
    With --best-of the model judges its own pictures; behind each path, the best first, stands how
    sure it is, from 0 to 1.

    \b
    janus-kit generate "a bench left of a teddy bear" -n 4 --seed 1 --grid
    janus-kit generate "four pizzas" --best-of 4
    janus-kit generate @prompts.txt -o out --json
    janus-kit generate --from out/000_1.png
    janus-kit generate --prompts prompts.jsonl --samples 4 -o pictures
    """
    if table is not None:
        if prompts or source or best_of or grid:
            raise typer.BadParameter(
                "takes neither PROMPT nor --from, --best-of or --grid", param_hint="--prompts"
            )
        wanted: dict[str, Any] = {
            "guidance": guidance,
            "negative": negative,
            "temperature": temperature,
        }
        wanted |= {"top_k": top_k, "top_p": top_p, "seed": seed, "batch_size": batch_size}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        chosen |= {"samples": num, "retry_failed": retry_failed, "existing": existing}
        bulk.generate_file(load, table, output, chosen, shard, world, as_json)
        return
    if shard or world or retry_failed or existing != "skip":
        raise typer.BadParameter(
            "--shard, --world, --existing and --retry-failed are for --prompts",
            param_hint="PROMPT",
        )
    texts = console.read_prompts(prompts or [])
    if not texts and source is None:
        raise typer.BadParameter("give at least one, or --from a picture", param_hint="PROMPT")
    from janus_kit.generation.sampling import SamplingOptions
    from janus_kit.metadata import read_settings
    from janus_kit.options import first_seed

    old = read_settings(source) if source else None
    if old and not texts:
        texts = [old.prompt]
    if best_of is not None and best_of < num:
        raise OptionError(f"--best-of must be --num ({num}) or more, not {best_of}")
    rows = [text for text in texts for _ in range(num)]
    given = {
        "guidance_scale": guidance,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "negative_prompt": negative,
        "seed": seed,
    }
    found = {name: getattr(old, name, None) if v is None else v for name, v in given.items()}
    options: dict[str, Any] = {name: v for name, v in found.items() if v is not None}
    # Checked before the model is loaded, which can take minutes.
    first = first_seed(options.pop("seed", None), len(texts) * (best_of or num))
    SamplingOptions(
        **{k.removesuffix("_scale"): v for k, v in options.items() if k != "negative_prompt"}
    )
    album = console.Album(output)
    pipe = _load_again(load, source, old) if source and old else load()
    if old and old.initial_codes:
        options["initial_codes"] = old.initial_codes
    sheet: list[Any] = []
    bad: set[str] = set()
    drawn = (
        _best(pipe, texts, num, best_of, first, batch_size, options)
        if best_of
        else ((*pair, None) for pair in console.draw(pipe, rows, first, batch_size, options))
    )
    for text, (image, settings, yes) in zip(rows, drawn, strict=True):
        if isinstance(settings, PromptError):
            if len(set(rows)) == 1:
                raise settings
            if text not in bad:
                console.complain(f"{text[:40]!r}: {settings}")
                if as_json:
                    console.result("", {"prompt": text, "error": str(settings)}, True)
            bad.add(text)
            continue
        if old:
            console.compare(old, settings)
            old = None
        path = album.add(image, settings)
        record = {"path": path, **asdict(settings)}
        if yes is not None:
            record["score"] = yes
        line = str(path) if yes is None else f"{path}\t{yes:.4f}"
        console.result(line, record, as_json)
        sheet += [image] if grid else []
    if sheet:
        path = album.add_grid(sheet)
        console.result(str(path), {"path": path, "pictures": len(sheet)}, as_json)
    if bad:
        raise typer.Exit(console.PARTLY)


def _best(
    pipe: "JanusPipeline",
    texts: list[str],
    num: int,
    best_of: int,
    first: int,
    batch_size: int | None,
    options: dict[str, Any],
) -> "Iterator[tuple[Any, Settings | PromptError, float | None]]":
    """The num best pictures of each text with their scores, or its error num times."""
    for place, text in enumerate(texts):
        try:
            drawn = pipe(
                text,
                num_images_per_prompt=num,
                best_of=best_of,
                seed=first + place * best_of,
                batch_size=batch_size or "auto",
                **options,
            )
        except PromptError as error:
            yield from [(None, error, None)] * num
        else:
            yield from zip(drawn.images, drawn.settings, drawn.scores or (), strict=True)


def _load_again(load: Load, picture: Path, old: "Settings") -> "JanusPipeline":
    """The model that drew a picture, as its settings say, unless the options name another."""
    dtype = load.keywords["dtype"] or old.dtype or None
    if load.keywords["model"] is not None:  # what differs is told after drawing
        return load(dtype=dtype)
    is_id = "/" in old.model and not Path(old.model).is_dir()
    bits = load.keywords["quantization"] or old.model_hash.partition("-")[2] or None
    pipe = load(model=old.model if is_id else None, dtype=dtype, quantization=bits)
    if old.model_hash not in ("", pipe.model_hash):
        raise OptionError(
            f"{picture}: was drawn by {old.model or 'a model'} with the hash {old.model_hash}, but "
            f"{pipe.name} has {pipe.model_hash}; name the model that drew it with --model"
        )
    return pipe


@app.command()
@with_model
def ask(
    load: Load,
    image: Annotated[str, typer.Argument(help="A picture file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    max_new_tokens: Length = 512,
    as_json: bulk.Json = False,
) -> None:
    """Ask a question about a picture; prints the answer.

    \b
    janus-kit ask out/000_1.png "How many benches are there?"
    """
    from janus_kit.vision.images import load as read_image

    picture = read_image(image)
    pipe = load()
    answer = pipe.ask(picture, question, max_new_tokens=max_new_tokens)
    console.result(answer, {"image": image, "question": question, "answer": answer}, as_json)


@app.command()
@with_model
def chat(
    load: Load,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE", help="Pictures to talk about.")
    ] = None,
    max_new_tokens: Length = 512,
) -> None:
    """Talk about pictures, or without any: a line from stdin, an answer, and so on.

    /quit or the end of stdin ends it. A line that cannot be answered is left out.

    \b
    janus-kit chat out/000_1.png
    """
    from janus_kit.vision.images import load as read_image

    shown = [read_image(name) for name in images or []]
    pipe = load()
    said: list[dict[str, Any]] = []
    failed = False
    for line in console.typed_lines():
        turn = {"role": "user", "content": line, "images": [] if said else shown}
        answer = ""
        try:
            for piece in pipe.chat([*said, turn], stream=True, max_new_tokens=max_new_tokens):
                answer += piece
                typer.echo(piece, nl=False)
        except PromptError as error:
            failed = True
            console.complain(error)
        else:
            typer.echo()
            said += [turn, {"role": "assistant", "content": answer}]
    if failed:
        raise typer.Exit(console.PARTLY)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder or a hub id.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A new or empty folder.")],
    revision: Revision = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model of either layout as the safetensors that transformers reads; prints DST.

    \b
    janus-kit convert deepseek-ai/Janus-Pro-1B Janus-Pro-1B-hf
    """
    from janus_kit import checkpoint, loading

    folder, _ = loading.find(source, revision=revision)
    checkpoint.convert(folder, target)
    typer.echo(target)


@app.command()
@with_model
def info(load: Load, as_json: bulk.Json = False) -> None:
    """Show versions, device, memory and the model, which is loaded for this.

    \b
    janus-kit info
    janus-kit info --model deepseek-community/Janus-Pro-1B --json
    """
    facts = console.describe()
    try:
        pipe = load()
        facts |= {
            "device": str(pipe.device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "model": pipe.name,
            "folder": pipe.folder,
            "hash": pipe.model_hash,
            "parameters": sum(weight.numel() for weight in pipe.model.parameters()),
        }
    finally:  # without a model, the rest is what helps to find out why
        console.result(console.lines(facts), facts, as_json)
