"""Scores of pictures by published protocols: GenEval and DPG-Bench."""
