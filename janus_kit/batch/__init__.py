"""Long runs that lose nothing: pictures captioned, prompts drawn, on one machine or on many."""
