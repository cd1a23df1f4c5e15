"""janus-kit train: make the embedded model from nothing, and measure it."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from janus_kit import console
from janus_kit.console import Model, Quiet, Verbose
from janus_kit.errors import OptionError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def training() -> None:
    """Make the embedded model from nothing, and measure it."""
    console.log.setLevel(logging.INFO)  # hours pass; --quiet comes later and still counts


@app.command()
def data(quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Make the pictures that the training world consists of; prints the file of the bank.

    Four packages are fetched once, 1.5 GB, and need 7 GB of disk until all is drawn. A run that was
    stopped goes on. Needs pip install 'janus-kit[data]', npm, and the apt-get of Debian 12.

    \b
    janus-kit train data
    """
    from janus_kit.training.recipe import fetch_data

    typer.echo(fetch_data(console.log.info))


@app.command()
def embedded(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder; a run there goes on.")
    ] = Path("runs/embedded"),
    budget: Annotated[str, typer.Option(help="cpu (hours), gpu or small (a trial).")] = "cpu",
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="How long all steps are to take here. [the budget's own steps]"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="A model that this made, to go on from; embedded is the package's."),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="vq, vision or model: what learns; may be repeated. [all]"),
    ] = None,
    new_codes: Annotated[
        bool, typer.Option("--new-codes", help="Lay out the codes of coloured things anew.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another one has other scenes.")] = 0,
    install: Annotated[
        bool, typer.Option("--install", help="Make it the embedded model of this package.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the embedded model; prints the folder of the finished one.

    \b
    janus-kit train embedded --budget gpu --minutes 8 -o runs/embedded
    janus-kit train embedded --start embedded --seed 1 --stage vision --stage model -o runs/longer
    """
    from importlib import resources

    from janus_kit.options import needs

    needs("accelerate", "train")
    from accelerate import PartialState

    from janus_kit.training.recipe import train_embedded
    from janus_kit.training.sizing import STAGES

    package = Path(str(resources.files("janus_kit.weights")))
    begun = package if start == "embedded" else Path(start) if start else None
    target = package if install else None
    made = train_embedded(
        output,
        budget=budget,
        minutes=minutes,
        target=target,
        start=begun,
        stages=STAGES if stage is None else stage,
        seed=seed,
        new_codes=new_codes,
    )
    state = PartialState()
    if state.is_main_process:
        typer.echo(made)
    state.destroy_process_group()


@app.command()
def evaluate(
    scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes to ask about.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Pictures of a GenEval prompt.")] = 4,
    every: Annotated[int, typer.Option(min=1, help="Draw every n-th prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes and pictures.")] = 0,
    guidance: Annotated[float | None, typer.Option(help="Of the drawing. [the model's]")] = None,
    quantization: Annotated[str | None, typer.Option(help="int8, int4 or fp8.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Figures by -o that these may not fall short of.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The figures as one line of JSON.")
    ] = False,
    model: Model = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure tokenizer, drawing, captions and answers of a model of the training world.

    With --baseline it exits with 1 where a share lies below the interval that it has there.

    \b
    janus-kit train evaluate --every 3 -o results.json
    janus-kit train evaluate --quantization int8 --baseline results.json
    """
    from janus_kit.training.evaluate import evaluate as measure
    from janus_kit.training.measures import fallen

    before = {} if baseline is None else _figures(baseline, scenes=scenes, seed=seed)

    figures = measure(
        model,
        scenes=scenes,
        samples=samples,
        every=every,
        seed=seed,
        guidance=guidance,
        quantization=quantization,
        out=output,
        report=console.log.info,
    )
    console.result("" if as_json else console.table(figures), figures, as_json)
    if baseline is None:
        return
    lost = fallen(figures, before)
    for line in lost:
        console.complain(f"below the interval of {baseline}: {line}")
    if lost:
        raise typer.Exit(1)
    console.log.warning("no share lies below its interval in %s", baseline)


def _figures(path: Path, **settings: int) -> dict[str, Any]:
    """An evaluation of the same held-out scenes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not JSON"
        raise OptionError(f"{path}: cannot be the baseline ({why}); give a file by -o") from error
    if not isinstance(found, dict) or "answers" not in found:
        raise OptionError(f"{path}: holds no evaluation; give a file by -o of this command")
    for name, value in settings.items():
        if found.get(name) != value:
            raise OptionError(
                f"{path}: has --{name} {found.get(name)}, not {value}; the same must be asked"
            )
    return found
