"""Scores of pictures by published protocols: GenEval."""
