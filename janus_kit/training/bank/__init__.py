"""The picture bank of the drawing world: what is fetched, drawn and packed, and how."""
