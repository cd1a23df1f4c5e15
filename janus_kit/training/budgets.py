"""How much a run of `janus-kit train embedded` learns, by the names of its budgets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from janus_kit.training.bank.names import NAMES
from janus_kit.training.loop import Schedule
from janus_kit.training.sizing import STAGES

__all__ = ["BUDGETS", "Budget"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much one run learns."""

    scenes: int  # that the codes are laid out over
    surveyed: int  # that tell what the codes show
    vq: Schedule
    vision: Schedule
    model: Schedule
    stages: tuple[str, ...] = STAGES  # that learn
    new_codes: bool = False  # for coloured things, in place of those of a start
    # The share of its rate at which a language model goes on: at the full one it first forgets, and
    # a run of minutes ends worse than it began.
    going_on: float = 0.4
    preset: str = "tiny"
    names: tuple[str, ...] = NAMES
    perceptual: bool = True  # fetches a network of photographs

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """Those of the stages that learn, by the names of their fields."""
        return {name: getattr(self, name) for name in self.stages}

    def by(self, plans: Mapping[str, Schedule]) -> "Budget":
        """The same with other schedules."""
        found = self
        for name, plan in plans.items():
            found = replace(found, **{name: plan})  # type: ignore[arg-type]
        return found


BUDGETS: Mapping[str, Budget] = {
    "cpu": Budget(
        scenes=900,
        surveyed=2400,
        vq=Schedule(steps=4000, batch=2, rate=4e-3, warmup=20),
        vision=Schedule(steps=9000, batch=8, rate=2e-3, warmup=40),
        model=Schedule(steps=7000, batch=6, rate=1.5e-3, warmup=40, hold=0.5),
    ),
    # Meant for twenty minutes of one H100-class GPU; not run yet.
    "gpu": Budget(
        scenes=2000,
        surveyed=4000,
        vq=Schedule(steps=6000, batch=16, rate=3e-3, warmup=100, save_every=500, workers=15),
        vision=Schedule(steps=4000, batch=128, rate=3e-3, warmup=100, save_every=500, workers=15),
        model=Schedule(steps=10000, batch=128, rate=2e-3, warmup=200, save_every=500, workers=15),
    ),
    # Minutes; shows that everything runs and draws nothing worth seeing.
    "small": Budget(
        scenes=12,
        surveyed=12,
        perceptual=False,
        vq=Schedule(steps=4, batch=1, rate=1e-3, warmup=2, save_every=2),
        vision=Schedule(steps=4, batch=2, rate=1e-3, warmup=2, save_every=2),
        model=Schedule(steps=4, batch=2, rate=1e-3, warmup=2, save_every=2),
    ),
}
