"""python -m janus_kit is janus-kit."""

from janus_kit.cli import main

main()
