"""Checks of the numbers that users give, shared by all calls."""

import importlib.util
import secrets
from collections.abc import Iterable

import torch

from janus_kit.errors import OptionError, PromptError

__all__ = ["BATCH", "SEEDS", "batch_rows", "first_seed", "needs", "texts", "whole"]

BATCH = 4096  # rows; no device holds the caches of more
SEEDS = 2**63  # seeds lie below this, so that seed + i stays what a torch.Generator takes


def needs(package: str, extra: str) -> None:
    """Raise OptionError, which says how to get it, where a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise OptionError(f"this needs {package}; pip install 'janus-kit[{extra}]'")


def whole(name: str, value: object, low: int, high: int) -> int:
    """value, if it is a whole number from low to high; else OptionError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return value


def texts(name: str, value: object, *, optional: bool = False) -> list[str]:
    """One text or several as a list, None as "" where it is optional; else PromptError."""
    given = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    found = []
    for text in given:
        if not isinstance(text, str) and not (optional and text is None):
            raise PromptError(f"{name} must be text or a list of texts, not {text!r:.80}")
        found.append(text or "")
    return found


def first_seed(seed: int | None, count: int) -> int:
    """The seed of the first of count pictures; a random one below 2³² for None."""
    if seed is None:
        return secrets.randbelow(2**32)
    return whole("seed", seed, 0, SEEDS - count)


def batch_rows(
    batch_size: int | str, count: int, row_bytes: int, device: torch.device, spare: int = 0
) -> int:
    """How many of count pictures to draw at once; "auto" fits their caches into free memory.

    spare: bytes in use that would be given up for them.
    """
    if batch_size != "auto":
        if isinstance(batch_size, str):
            raise OptionError(f'batch_size must be a whole number or "auto", not {batch_size!r}')
        return whole("batch_size", batch_size, 1, BATCH)
    if device.type != "cuda":
        return min(count, 8)  # more than 8 rows gain nothing on a CPU's few cores
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds in reserve is free as well, and counts as it did before the first call.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) + spare
    return max(1, min(count, 64, int(free * 0.6 / row_bytes)))
