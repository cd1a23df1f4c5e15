"""Part of janus_kit; import it as janus_kit.generation."""
