"""Words that a small model has learnt, and a hint, once, where a prompt has others."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Hint", "strange"]

log = logging.getLogger(__name__)

WORDS = "words.txt"  # beside the weights of a model that knows a small world: a word a line
_REMEDY = "give --model (in Python: from_pretrained) a published one, like deepseek-ai/Janus-Pro-1B"
_MOST = 4  # words that a hint names


def strange(folder: Path, prompts: Iterable[str]) -> list[str]:
    """The words of prompts that the model in folder never learnt, each once, in their order.

    Empty for a model that has no list of words: it is taken to know all.
    """
    try:
        known = set((folder / WORDS).read_text(encoding="utf-8").split())
    except OSError:
        return []
    said = (word for prompt in prompts for word in re.findall(r"[^\W_]+", prompt.lower()))
    return list(dict.fromkeys(word for word in said if word not in known))


class Hint:
    """What is said, once, of prompts in words that the model in folder never learnt."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = False

    def about(self, prompts: Iterable[str]) -> str:
        """One sentence about such words; empty where there is none."""
        words = strange(self._folder, prompts)
        if not words:
            return ""
        named = ", ".join(f"'{word}'" for word in words[:_MOST])
        more = f" and {len(words) - _MOST} more" if len(words) > _MOST else ""
        return (
            f"the embedded model knows a small world of 80 things and ten colours, without {named}"
            f"{more}: it draws what comes nearest; for all else {_REMEDY}"
        )

    def once(self, prompts: Iterable[str]) -> None:
        """Log it as a warning, the first time that there is something to say."""
        if not self._told and (said := self.about(prompts)):
            self._told = True
            log.warning("%s", said)
