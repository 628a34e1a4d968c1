"""The leak audit: what the sides of any split share, down to near-identical pictures."""
