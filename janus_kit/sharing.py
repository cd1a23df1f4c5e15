"""Options that several commands share, written once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["with_options"]


def with_options(
    shared: Callable[..., Any], name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add shared's options to a command, whose argument name then calls shared with them.

    What shared takes by keyword only is no option: the command gives it.
    """
    taken = inspect.signature(shared).parameters
    added = {n: option for n, option in taken.items() if option.kind != option.KEYWORD_ONLY}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {option: given.pop(option) for option in added}
            command(**{name: functools.partial(shared, **chosen)}, **given)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != name]
        parameters = [*own, *added.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # for typer
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
