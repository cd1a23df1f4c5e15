"""janus_kit beside transformers on the same weights, in turns: `janus-kit bench`."""
