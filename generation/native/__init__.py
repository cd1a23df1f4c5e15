"""What runs in C on a CPU, where it was built: decoder steps, attention, packed matrices.

step.c does whole decoder steps on row-major matrices as PyTorch holds them, attend.c the attention
of whole rows, packed.h matrices in 8 and 4 bits. On a CPU a step of few rows reads every weight
once, and a small model's step in PyTorch is mostly the starting of its hundred operations.
"""

from janus_kit.generation.native.attention import attend, attends
from janus_kit.generation.native.library import available, free_memory, level, read_speed
from janus_kit.generation.native.packed import BITS, Packed, large
from janus_kit.generation.native.step import Head, LayerWeights, NativeStep

__all__ = [
    "BITS",
    "Head",
    "LayerWeights",
    "NativeStep",
    "Packed",
    "attend",
    "attends",
    "available",
    "free_memory",
    "large",
    "level",
    "read_speed",
]
