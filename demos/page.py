"""gr.Blocks whose users always get a sentence, and which fetches nothing for them."""

import logging
from collections.abc import Iterator
from typing import Any

import gradio as gr

from janus_kit import GenerationError, OptionError
from janus_kit.demos.jobs import BROKEN
from janus_kit.demos.studio import plain

__all__ = ["Page"]

log = logging.getLogger(__name__)


class Page(gr.Blocks):
    """A page that checks what it is sent, and tells what went wrong without the details."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """The values of fields as handlers take them; what is wrong is told to who sent it."""
        if any(path.lower().startswith(("http:", "https:")) for path in _paths(inputs)):
            raise plain(OptionError("pictures are not fetched from the web; save and upload them"))
        try:
            return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            log.info("what was sent cannot be read", exc_info=error)
            sentence = "what was sent cannot be read; load the page anew and try again"
            raise plain(OptionError(sentence)) from error

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        """A handler's answer. An error that nobody foresaw is in the log, and not in the answer."""
        try:
            return await super().process_api(*given, **named)
        except gr.Error:
            raise
        except Exception as error:
            log.error("a handler of the page failed", exc_info=error)
            raise plain(GenerationError(BROKEN)) from error


def _paths(sent: Any) -> Iterator[str]:
    """Every path of a file in what was sent."""
    if isinstance(sent, dict):
        if isinstance(sent.get("path"), str):
            yield sent["path"]
        sent = list(sent.values())
    if isinstance(sent, list):
        for part in sent:
            yield from _paths(part)
