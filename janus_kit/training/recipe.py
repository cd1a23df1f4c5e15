"""How the embedded model is made, from nothing to a folder: `janus-kit train embedded`."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from janus_kit import checkpoint
from janus_kit.config import PRESETS
from janus_kit.errors import CheckpointError, OptionError
from janus_kit.generation.sampling import SamplingOptions
from janus_kit.model import Janus
from janus_kit.prompts import Tokenizer
from janus_kit.training import language, painting, world
from janus_kit.training.bank.make import make_bank
from janus_kit.training.bank.names import NAMES
from janus_kit.training.beginning import word_embeds
from janus_kit.training.begun import keep_to
from janus_kit.training.budgets import BUDGETS, Budget
from janus_kit.training.designing import design
from janus_kit.training.lessons import asked, example, held_out, lesson, novel, picture, texts
from janus_kit.training.loop import Schedule
from janus_kit.training.model_stage import train_model
from janus_kit.training.perceptual import Perceptual, Teacher
from janus_kit.training.quantizer import PatchBook, as_drawn
from janus_kit.training.relaying import relay
from janus_kit.training.sizing import STAGES, sized
from janus_kit.training.tokenizer import train_tokenizer
from janus_kit.training.traits import survey
from janus_kit.training.vision_stage import VisionLearner, train_vision
from janus_kit.training.vq_stage import train_vq
from janus_kit.training.watching import PaintingWatch, SeeingWatch, Watch

__all__ = ["fetch_data", "meanings", "train_embedded"]

log = logging.getLogger(__name__)
T = TypeVar("T")

SEED = 0
# To the eye a small model draws best here: at the published 5 and 1 its doubts show as speckles.
DRAWS = {"guidance_scale": 1.5, "temperature": 0.3}
PATCHES = "patches.safetensors"
BOOK = 90_000_000  # the first number of the scenes that the codes are laid out over
SURVEYED = 91_000_000  # and of those that tell what they show
BETWEEN_SEEDS = 100_000_000  # how far the scenes of two seeds are apart
WISHES = (  # what is drawn while the model trains
    "a photo of a zebra",
    "a photo of three red apples",
    "a photo of a purple umbrella and a black car",
    "a photo of a bench left of a teddy bear",
)
SHARD = 15_000_000  # bytes of weights in a file of a run, for places that limit a file's size
WHOLE = 100_000_000  # and of what is shipped: one file


def fetch_data(report: Callable[[str], None]) -> Path:
    """Make the picture bank of the world; returns its file."""
    path = make_bank(report)
    report(f"{len(NAMES)} things are in {path}")
    return path


def train_embedded(
    folder: Path,
    *,
    budget: str = "cpu",
    minutes: float | None = None,
    target: Path | None = None,
    start: Path | None = None,
    stages: Sequence[str] = STAGES,
    seed: int = SEED,
    new_codes: bool = False,
) -> Path:
    """Train the embedded model in folder, resuming what is there; returns the finished model.

    The stages are the tokenizer of texts, the codes, the understanding encoder, the model and the
    VQ tokenizer; each keeps its state in a file or folder of its own. The finished model, in
    bfloat16, goes to target, or folder/model, there in files of some 15 MB. Runs under torchrun
    or accelerate launch too.

    minutes: how long the steps of all stages are to take here, see sizing.py; the budget's own
    steps if None. start: a model that this made, which goes on to learn; its tokenizer of texts
    and, without new_codes, its codes stay. Of one whose language model or codes have another shape,
    the encoder and its aligner alone go on. stages: those of "vq", "vision" and "model" that learn;
    the others stay as they are in start. seed: another one has other scenes looked at. new_codes:
    the forms of coloured things get other codes than they have in start.

    Raises OptionError for an unknown budget or stage, minutes that are too few, a stage left out or
    new codes without a start, CheckpointError for a start that is no such model and for a folder of
    a run with other arguments.
    """
    from accelerate import PartialState

    if budget not in BUDGETS:
        raise OptionError(f"budget must be {', '.join(BUDGETS)}, not {budget!r}")
    if not stages or not set(stages) <= set(STAGES):
        raise OptionError(f"stages must be some of {', '.join(STAGES)}, not {', '.join(stages)!r}")
    if start is None and set(stages) != set(STAGES):
        raise OptionError(
            f"stages: with {', '.join(stages)} alone the rest has to come from a start; name one"
        )
    if start is None and new_codes:
        raise OptionError("new codes take the place of those of a start; name one")
    if new_codes and not {"vq", "model"} <= set(stages):
        raise OptionError("new codes have to be learnt by both the stages vq and model")
    about: dict[str, Any] = {
        "budget": budget,
        "minutes": minutes,
        "stages": sorted(stages),
        "seed": seed,
    }
    begun_from = None if start is None else checkpoint.checksum(start)[:10]
    about |= {"new_codes": new_codes, "start": begun_from}
    with PartialState().main_process_first():
        keep_to(folder, about)
    plan = replace(
        BUDGETS[budget], new_codes=new_codes, stages=tuple(s for s in STAGES if s in stages)
    )
    if minutes is not None:

        def run(schedules: Mapping[str, Schedule], at: Path) -> Mapping[str, Path]:
            short = replace(plan.by(schedules), scenes=12, surveyed=12)
            _train(short, at, target=None, start=start, seed=seed)
            logs = {"vq": at / "vq", "vision": at / "vision", "model": at / "model_stage"}
            return {name: logs[name] for name in schedules}

        plan = plan.by(sized(plan.schedules, minutes, folder, run))
    return _train(plan, folder, target=target, start=start, seed=seed)


def _train(
    plan: Budget, folder: Path, *, target: Path | None, start: Path | None, seed: int
) -> Path:
    """train_embedded by a plan."""
    from accelerate import PartialState

    painting.bank()  # before anything is begun without it
    config = PRESETS[plan.preset]
    folder.mkdir(parents=True, exist_ok=True)
    words = folder / "tokenizer"
    state = PartialState()
    with state.main_process_first():
        taken = None if start is None else _take(start, folder, words, plan)
        if not (words / "tokenizer.json").exists():
            train_tokenizer(texts(plan.names), config.language.vocab_size, words)
        tokenizer = Tokenizer.from_folder(words, config.language.vocab_size)
    state.wait_for_everyone()
    known = None
    if taken is not None and plan.new_codes and start is not None:
        if taken.config != config:
            raise OptionError(f"{start}: is of another shape; its codes are laid out anew anyway")
        known = PatchBook.load(patches_of(start))
    book = _book(plan, config.vq.codebook_size, folder / PATCHES, known)
    if taken is not None and known is not None:
        relay(taken, known, book)
    whole = taken if taken is not None and taken.config == config else None
    if whole is None and len(plan.stages) < len(STAGES):
        raise OptionError(f"{start}: is of another shape, so that all stages have to learn")
    other = partial(_other, seed)
    vision = None
    if "vision" in plan.stages:
        embeds = word_embeds(config.language, SEED)
        easy = 0 if taken is not None else plan.vision.steps * plan.vision.batch // 8
        vision = train_vision(
            config.vision,
            other(partial(lesson, plan.names, seed * BETWEEN_SEEDS + easy)),
            plan.names,
            (meanings(embeds, tokenizer, plan.names), meanings(embeds, tokenizer, world.COLORS)),
            folder / "vision",
            plan.vision,
            spoil=partial(as_drawn, book),
            seed=seed,
            taken=taken,
            teacher=Teacher() if plan.perceptual else None,
            watch=SeeingWatch(scenes=partial(novel, plan.names), names=plan.names),
        )
    if "model" in plan.stages:
        janus = _model(plan, folder, book, tokenizer, vision, whole, seed)
    else:
        assert whole is not None
        janus = whole
        if vision is not None:
            janus.vision.load_state_dict(vision.vision.state_dict())
    if "vq" in plan.stages:
        # Last, since nothing else waits for it: what the codes stand for is in the book.
        vq = train_vq(
            config.vq,
            other(partial(picture, plan.names, "train")),
            book,
            folder / "vq",
            plan.vq,
            seed=seed,
            perceptual=Perceptual() if plan.perceptual else None,
            taken=None if whole is None else whole.vq,
            watch=PaintingWatch(
                scenes=partial(picture, plan.names, "test"), book=book, folder=folder / "vq"
            ),
        )
        janus.vq.load_state_dict(vq.state_dict())
    made = target or folder / "model"
    if state.is_main_process:
        export(janus, words, made, SHARD if target is None else WHOLE)
        book.save(patches_of(made))
    state.wait_for_everyone()
    return made


def _other(seed: int, scenes: Callable[..., T]) -> Callable[..., T]:
    """The same with other scenes for each seed."""
    return lambda number, *random: scenes(seed * BETWEEN_SEEDS + number, *random)


def _model(
    plan: Budget,
    folder: Path,
    book: PatchBook,
    tokenizer: Tokenizer,
    vision: VisionLearner | None,
    taken: Janus | None,
    seed: int,
) -> Janus:
    """The model stage."""
    other = partial(_other, seed)
    scenes = (
        world.compose(SURVEYED + i, names=plan.names, steady=True) for i in range(plan.surveyed)
    )
    pace = 1.0 if taken is None else plan.going_on
    return train_model(
        PRESETS[plan.preset],
        book,
        tokenizer,
        other(partial(example, plan.names)),
        other(partial(asked, plan.names)),
        folder / "model_stage",
        replace(plan.model, rate=pace * plan.model.rate),
        traits=survey(book, scenes, plan.names) if taken is None else None,
        vision=vision,
        spoil=partial(as_drawn, book),
        watch=Watch(
            book=book,
            tokenizer=tokenizer,
            drawn=partial(held_out, plan.names, True),
            asked=partial(held_out, plan.names, False),
            folder=folder / "model_stage",
            wishes=WISHES,
            options=SamplingOptions(
                guidance=DRAWS["guidance_scale"], temperature=DRAWS["temperature"]
            ),
        ),
        taken=taken,
        seed=seed,
    )


def patches_of(model: Path) -> Path:
    """The file that says what a model's codes stand for, so that training can go on.

    It lies beside the weights; that of the embedded model lies here, since nothing else reads it.
    """
    embedded = Path(str(resources.files("janus_kit.weights")))
    return Path(__file__).with_name(PATCHES) if model.samefile(embedded) else model / PATCHES


def _take(start: Path, folder: Path, words: Path, plan: Budget) -> Janus:
    """The model of start, in float32; its tokenizer and its codes are copied into folder."""
    janus, config = checkpoint.load(start, device=torch.device("cpu"), dtype=torch.float32)
    wanted = PRESETS[plan.preset]
    shapes = [(c.vision, c.language.hidden, c.language.vocab_size) for c in (config, wanted)]
    if shapes[0] != shapes[1]:
        raise CheckpointError(f"{start}: is not of the preset {plan.preset!r}; train anew")
    if config == wanted and not plan.new_codes:
        PatchBook.load(patches_of(start)).save(folder / PATCHES)
    words.mkdir(exist_ok=True)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        text, copy = (start / name).read_bytes(), words / name
        if not copy.exists() or copy.read_bytes() != text:  # another process may be reading it
            copy.write_bytes(text)
    return janus.requires_grad_(True)


def meanings(embeds: Tensor, tokenizer: Tokenizer, words: Iterable[str]) -> Tensor:
    """The embeds of words as they stand in a sentence [n, d]; of one in pieces, their mean."""
    return torch.stack([embeds[tokenizer.encode(f" {word}")].mean(0) for word in words])


def _book(plan: Budget, codes: int, path: Path, keep: PatchBook | None) -> PatchBook:
    """The patches of the codes, laid out over the scenes that are drawn. keep: see design."""
    if path.exists():
        return PatchBook.load(path)

    scenes = [world.compose(BOOK + i, names=plan.names, steady=True)[1] for i in range(plan.scenes)]
    own = (world.painted(scene, None) for scene in scenes)
    plain = ((world.render(scene), world.places(scene)) for scene in own)
    colored = (
        (world.in_all_colors(scene), world.places(world.painted(scene, "red")))
        for scene in scenes[::3]
        if world.paintable(scene)
    )
    book = design(world.empty(), plain, colored, codes, keep=keep)
    book.save(path)
    return book


def export(janus: Janus, tokenizer: Path, target: Path, shard: int = WHOLE) -> Path:
    """Write the model in bfloat16 to target, in transformers' layout, and the words it knows.

    shard: bytes of weights in one file.
    """
    janus = janus.cpu().to(torch.bfloat16)
    # transformers' encoder compares raw vectors, so the codebook is kept on the unit sphere.
    book = janus.vq.codebook.weight
    rows = book.data.float()
    off = (rows.norm(dim=-1, keepdim=True) - 1).abs() > 2**-8  # what was rounded stays as it is
    book.data = torch.where(off, F.normalize(rows, dim=-1), rows).to(book.dtype)
    checkpoint.save(janus, target, tokenizer_folder=tokenizer, draws=DRAWS, shard=shard)
    (target / "words.txt").write_text("\n".join(language.words()) + "\n", encoding="utf-8")
    log.info("%s: the model is ready", target)
    return target
