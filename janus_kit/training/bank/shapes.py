"""All things drawn by code: name -> variant -> what builds it."""

from collections.abc import Callable, Mapping

from janus_kit.training.bank.food import FOOD
from janus_kit.training.bank.indoor import INDOOR
from janus_kit.training.bank.kitchen import KITCHEN
from janus_kit.training.bank.meshes import Mesh
from janus_kit.training.bank.personal import PERSONAL
from janus_kit.training.bank.sport import SPORT
from janus_kit.training.bank.street import STREET

__all__ = ["SHAPES"]

SHAPES: Mapping[str, Mapping[str, Callable[[], list[Mesh]]]] = {
    **STREET,
    **SPORT,
    **PERSONAL,
    **FOOD,
    **KITCHEN,
    **INDOOR,
}
