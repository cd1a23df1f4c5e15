"""janus-kit score: from a model or a folder of pictures to a score with its interval."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from functools import partial as partial_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from janus_kit import console
from janus_kit.console import Load, Quiet, Verbose, with_model
from janus_kit.errors import OptionError
from janus_kit.sharing import with_options

if TYPE_CHECKING:
    from janus_kit.batch.ledger import Shard
    from janus_kit.scoring.clip import ColorJudge
    from janus_kit.scoring.detectors import Detector
    from janus_kit.scoring.drawers import Drawer
    from janus_kit.scoring.run import Outcome, Run

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="The folder of the run.")]
Images = Annotated[
    Path | None, typer.Option(help="Score these pictures, in the published layout; draw none.")
]
Diffusers = Annotated[
    str | None, typer.Option(metavar="ID", help="Draw with a text-to-image pipeline of diffusers.")
]
Samples = Annotated[int, typer.Option(min=1, help="Pictures a prompt; 4 are published.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every prompt's first picture.")]
Guidance = Annotated[float | None, typer.Option(help="1 switches it off. [5, or the model's]")]
Temperature = Annotated[
    float | None, typer.Option(help="0 takes the likeliest code. [1, or the model's]")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Of a pipeline of diffusers.")]
Batch = Annotated[str, typer.Option(help="Pictures at once, or auto.")]
PredictOnly = Annotated[bool, typer.Option("--predict-only", help="Draw, and judge nothing.")]
ScoreOnly = Annotated[bool, typer.Option("--score-only", help="Judge what is drawn; draw nothing.")]
Resume = Annotated[
    bool, typer.Option("--resume/--overwrite", help="Go on with a run there, or begin anew.")
]
Partial = Annotated[bool, typer.Option("--partial", help="Score what is there where some is not.")]
Baseline = Annotated[
    Path | None, typer.Option(help="Another run's summary.json, to compare prompt by prompt.")
]
ShardOption = Annotated[
    str, typer.Option(metavar="I/N", help="Part I of N, from 0; a run without it sums all up.")
]
Json = Annotated[bool, typer.Option("--json", help="The summary as one line of JSON.")]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the options say that both benchmarks have."""

    run: "Run"
    drawer: Callable[[Load], "Drawer"]
    draws: bool
    size: int | None
    resume: bool
    predict_only: bool
    baseline: Path | None
    part: "Shard"


def wanted(
    images: Images = None,
    diffusers: Diffusers = None,
    samples: Samples = 4,
    seed: Seed = 42,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    batch_size: Batch = "auto",
    predict_only: PredictOnly = False,
    score_only: ScoreOnly = False,
    resume: Resume = True,
    partial: Partial = False,
    baseline: Baseline = None,
    shard: ShardOption = "0/1",
    *,
    output: Path,
    asks: bool = False,  # --predict-only has something to write about others' pictures, too
) -> Wanted:
    """The run that the options of both benchmarks ask for; output is each one's own."""
    from janus_kit.batch.ledger import Shard
    from janus_kit.scoring.run import Run

    run = Run(output=output, images=images, samples=samples, seed=seed, partial=partial)
    if images is not None and (diffusers is not None or (predict_only and not asks)):
        left = "--predict-only" if diffusers is None else "--diffusers"
        raise OptionError(f"--images are drawn already; leave {left} out")
    if predict_only and score_only:
        raise OptionError("give --predict-only or --score-only, not both")
    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size)):
        raise OptionError(f"batch size must be a whole number from 1 or auto, not {batch_size!r}")
    size = None if batch_size == "auto" else int(batch_size)
    part = Shard.parse(shard)
    draws = images is None and not score_only
    if steps is not None and diffusers is None:
        raise OptionError("--steps are those of --diffusers; leave it out")
    if temperature is not None and diffusers is not None:
        raise OptionError("--diffusers takes no --temperature; leave it out")
    if not resume and part.count > 1:
        raise OptionError("--overwrite removes other shards' pictures too; take another -o")
    if not resume and not draws:
        run.forget()
    return Wanted(
        run=run,
        drawer=lambda load: _drawer(load, diffusers, guidance, temperature, steps, size),
        draws=draws,
        size=size,
        resume=resume,
        predict_only=predict_only,
        baseline=baseline,
        part=part,
    )


with_run = with_options(wanted, "want")


@app.callback()
def score() -> None:
    """Score pictures by GenEval or DPG-Bench, drawn here or elsewhere."""
    console.log.setLevel(logging.INFO)  # a run takes long; --quiet comes later and still counts


@app.command()
@with_model
@with_run
def geneval(
    load: Load,
    want: Callable[..., Wanted],
    output: Output = Path("runs/geneval"),
    detector: Annotated[
        str | None,
        typer.Option(help="A hub id, efficientdet[:FILE] or module:function. [the published one]"),
    ] = None,
    colors: Annotated[
        str | None, typer.Option(help="pixels, or the hub id of a CLIP. [by the detector]")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Only these, with commas between.")] = "",
    names: Annotated[
        str, typer.Option(help="Only prompts of these things: a,b,c or @FILE of lines.")
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="The first prompts of a task.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of a detection. [0.3]")] = None,
    counting_threshold: Annotated[
        float | None, typer.Option(help="Where things are counted. [0.9; efficientdet 0.3]")
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="First see if the detector answers garbage.")
    ] = False,
    as_json: Json = False,
) -> None:
    """GenEval: prints the scores; writes results.jsonl, summary.json and report.html.

    The published detector and CLIP are fetched from the hub; efficientdet with pixels works
    offline. A run that was stopped goes on by the same command.

    \b
    janus-kit score geneval --model deepseek-community/Janus-Pro-1B -o runs/pro
    janus-kit score geneval --images others/ --baseline runs/pro/summary.json -o runs/others
    janus-kit score geneval --detector efficientdet --samples 1 -o runs/embedded
    """
    from janus_kit.scoring import geneval_run

    rules = geneval_run.Rules(threshold=threshold, counting_threshold=counting_threshold)
    asked = want(output=output)
    run, part = asked.run, asked.part
    among = geneval_run.others_prompts(run.pictures) if run.images is not None else None
    chosen = geneval_run.choose(_words(tasks), _words(names), limit, part, among)
    if not chosen:  # of a shard
        _shard_done(asked, (), as_json)
    _see_baseline(asked, "geneval")
    # Before hours of drawing, see if the pictures can be judged at all.
    judges = None
    if not asked.predict_only:
        judges = _judges(load, detector, colors, asked.size, self_test)
    failed: list[str] = []
    if asked.draws:
        failed = geneval_run.draw(run, chosen, asked.drawer(load), overwrite=not asked.resume)
        console.complain_of(failed)
    if judges is None:
        _drawn(run, failed, as_json)
    finds, told, warnings = judges
    if part.count > 1:
        geneval_run.see(run, chosen, finds, told, rules)
        _shard_done(asked, failed, as_json)
    outcome = geneval_run.score(run, chosen, finds, told, rules, warnings)

    from janus_kit.scoring.page import geneval_page

    _finish(asked, outcome, partial_of(geneval_page, root=run.pictures), failed, as_json)


@app.command()
@with_model
@with_run
def dpg(
    load: Load,
    want: Callable[..., Wanted],
    questions: Annotated[
        Path | None, typer.Option(help="A CSV like dpg_bench.csv. [the fetched one]")
    ] = None,
    fetched: Annotated[
        bool, typer.Option("--fetch", help="Fetch the published questions, once.")
    ] = False,
    output: Output = Path("runs/dpg"),
    prompts: Annotated[
        Path | None, typer.Option(help="A folder of ID.txt files. [the CSV's text column]")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="self, or the hub id of a vision-language model.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Answers made elsewhere; nothing is drawn. See the README.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first items.")] = None,
    compat: Annotated[
        bool, typer.Option("--compat", help="What the reference prints, its faults included.")
    ] = False,
    as_json: Json = False,
) -> None:
    """DPG-Bench: prints the scores; writes results.jsonl, summary.json and report.html.

    Published scores are by mPLUG, which runs elsewhere: --predict-only writes asks.jsonl, what it
    has to answer, the README has the script that does, and --answers reads what it wrote.

    \b
    janus-kit score dpg --fetch --model deepseek-community/Janus-Pro-1B --predict-only -o runs/pro
    janus-kit score dpg --answers answers.jsonl -o runs/pro
    janus-kit score dpg --images others/ --predict-only -o runs/others
    janus-kit score dpg --questions mine.csv --judge self -o runs/mine
    """
    from janus_kit.scoring import asking, dpg_run
    from janus_kit.scoring import dpg as rules
    from janus_kit.scoring.fetch import dpg_file, fetch_dpg

    asked = want(output=output, asks=True)
    if (asked.predict_only or judge is not None) == (answers is not None):
        raise OptionError("give a --judge or --answers, and not both; --predict-only needs neither")
    run, part = asked.run, asked.part
    questions = questions or (fetch_dpg() if fetched else dpg_file())
    groups = dpg_run.group(rules.load_questions(questions, compat=compat))
    published = rules.is_published(questions)
    items = dpg_run.choose(groups, limit, part)
    if not items:  # of a shard
        _shard_done(asked, (), as_json)
    draws = asked.draws and answers is None
    texts = dpg_run.texts(prompts, questions, needed=draws)
    load = partial_of(cache(load.func), **load.keywords)  # one model may draw and judge
    # Before hours of drawing, see if the pictures can be judged at all.
    _see_baseline(asked, "dpg")
    judge = None if asked.predict_only else judge
    give = asking.opened(groups, judge, answers, load, load.keywords["device"], asked.size)
    failed: list[str] = []
    if draws:
        drawer = asked.drawer(load)
        failed = dpg_run.draw(run, items, texts, drawer, overwrite=not asked.resume)
        console.complain_of(failed)
    if give is None:
        if part.count == 1:
            failed += (bad := asking.write_asks(run, items, groups))
            console.complain_of(bad)
        _drawn(run, failed, as_json)
    told = give(run, items)
    if part.count > 1:
        _shard_done(asked, failed, as_json)
    outcome = dpg_run.sum_up(run, items, groups, told, published_questions=published, compat=compat)
    page = partial_of(dpg_run.dpg_page, run=run, questions=groups, prompts=texts)
    _finish(asked, outcome, page, failed, as_json)


@app.command()
def fetch(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="dpg or efficientdet.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Get DPG-Bench's questions, or the small detector's weights, once; prints the file.

    \b
    janus-kit score fetch dpg
    janus-kit score fetch efficientdet
    """
    from janus_kit.scoring.fetch import fetch_dpg, fetch_efficientdet

    known = {"dpg": fetch_dpg, "efficientdet": fetch_efficientdet}
    if what not in known:
        raise OptionError(f"what can be fetched is {' and '.join(known)}, not {what!r}")
    typer.echo(known[what]())


def _words(text: str) -> list[str]:
    """The words of a,b,c or of the lines of @FILE."""
    if text.startswith("@"):
        return console.read_prompts([text])
    return [word.strip() for word in text.split(",") if word.strip()]


def _see_baseline(asked: Wanted, benchmark: str) -> None:
    """Read the baseline before anything is drawn; raises ScoringError where that fails."""
    from janus_kit.scoring.compare import baseline

    if asked.baseline is not None:
        baseline(asked.baseline, benchmark)


def _drawn(run: "Run", failed: Sequence[str], as_json: bool) -> NoReturn:
    console.result(str(run.pictures), {"images": run.pictures}, as_json)
    _end(failed)


def _shard_done(asked: Wanted, failed: Sequence[str], as_json: bool) -> NoReturn:
    shard = f"{asked.part.index}/{asked.part.count}"
    console.result(f"{asked.run.output}: shard {shard} is done", {"shard": shard}, as_json)
    _end(failed)


def _drawer(
    load: Load,
    diffusers: str | None,
    guidance: float | None,
    temperature: float | None,
    steps: int | None,
    size: int | None,
) -> "Drawer":
    from janus_kit.scoring.drawers import DiffusersDrawer, JanusDrawer

    given = load.keywords
    if diffusers is not None:
        return DiffusersDrawer.open(
            diffusers,
            device=given["device"],
            dtype=given["dtype"] or "auto",
            revision=given["revision"],
            guidance=guidance,
            steps=steps,
            batch_size=size,
        )
    pipe = load()
    pipe.set_progress_bar_config(disable=True)  # the stage has one
    return JanusDrawer(
        pipe,
        guidance=guidance,
        temperature=temperature,
        batch_size=size,
        revision=given["revision"],
    )


def _judges(
    load: Load, detector: str | None, colors: str | None, size: int | None, self_test: bool
) -> "tuple[Detector, ColorJudge, list[str]]":
    """The detector, the judge of colors, and what a self-test found suspicious."""
    from janus_kit.scoring.clip import PUBLISHED, open_colors
    from janus_kit.scoring.detectors import DEFAULT, open_detector
    from janus_kit.scoring.detectors import self_test as look_for_garbage

    device = load.keywords["device"]
    finds = open_detector(detector or DEFAULT, device=device, batch_size=size)
    offline = (detector or "").startswith("efficientdet")
    told = open_colors(colors or ("pixels" if offline else PUBLISHED), device=device)
    warnings = look_for_garbage(finds) if self_test else []
    for line in warnings:
        console.log.warning("%s looks broken: %s", finds.facts.name, line)
    if self_test and not warnings:
        console.log.info("%s answers as it should", finds.facts.name)
    return finds, told, warnings


def _finish(
    asked: Wanted,
    outcome: "Outcome",
    page: Callable[..., str],
    failed: Sequence[str],
    as_json: bool,
) -> NoReturn:
    """Write what is left to write, print the scores, and end."""
    from janus_kit.scoring.report import lines, write

    summary = write(asked.run, outcome, asked.baseline, page)
    console.complain_of(outcome.complaints)
    shown = "\n".join([*lines(summary), str(asked.run.output / "report.html")])
    console.result("" if as_json else shown, summary, as_json)
    _end([*failed, *outcome.complaints])


def _end(complaints: Sequence[str]) -> NoReturn:
    """Exit, with the code of what finished in part where something is to be complained of."""
    raise typer.Exit(console.PARTLY if complaints else 0)
