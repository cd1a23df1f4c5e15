"""Every error that janus_kit raises on purpose: one plain sentence each, for people."""

__all__ = [
    "BatchError",
    "CheckpointError",
    "DeviceError",
    "GenerationError",
    "ImageError",
    "JanusKitError",
    "OptionError",
    "PromptError",
    "ScoringError",
]


class JanusKitError(Exception):
    """The root. The command line prints it as one line; exit_code is what the command returns."""

    exit_code = 2


class OptionError(JanusKitError, ValueError):
    """An option has a value that it cannot have."""


class PromptError(JanusKitError, ValueError):
    """A text cannot be used as a prompt, a question or a message."""


class ImageError(JanusKitError, ValueError):
    """A file or an object is not a picture that can be read."""


class DeviceError(JanusKitError, ValueError):
    """A device or dtype is unknown or not there."""


class CheckpointError(JanusKitError):
    """A model folder cannot be loaded."""

    exit_code = 4


class GenerationError(JanusKitError, RuntimeError):
    """The model produced something that cannot be used, such as NaN logits."""

    exit_code = 1


class ScoringError(JanusKitError, ValueError):
    """What is to be scored cannot be: metadata, a detection, a result or a folder is wrong."""


class BatchError(JanusKitError, ValueError):
    """A long run cannot begin or go on: its inputs, its folder or its ledger are not usable."""
