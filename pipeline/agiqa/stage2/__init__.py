"""Stage 2: cached vectors to an ensemble that predicts the MOS."""
