"""A small book of codes, for the tests of codes and of the VQ stage."""

from janus_kit.config import VQConfig
from janus_kit.training import world
from janus_kit.training.bank.names import NAMES
from janus_kit.training.designing import design
from janus_kit.training.quantizer import PatchBook

SMALL_VQ = VQConfig(
    codebook_size=64,
    base_channels=32,
    latent_channels=32,
    channel_multiplier=(1, 1, 1, 1, 1),
    res_blocks=1,
)


FEW = NAMES[1:7]


def scenes_of(few: tuple[str, ...], count: int) -> list[world.Scene]:
    return [world.compose(seed, names=few, steady=True)[1] for seed in range(count)]


def small_book(count: int, codes: int, few: tuple[str, ...] = FEW) -> PatchBook:
    """Codes laid out over some steady scenes of few things."""
    scenes = scenes_of(few, count)
    own = [world.painted(scene, None) for scene in scenes]
    plain = ((world.render(scene), world.places(scene)) for scene in own)
    colored = ((world.in_all_colors(s), world.places(world.painted(s, "red"))) for s in scenes)
    return design(world.empty(), plain, colored, codes)
