"""Noise ceilings, bootstrap intervals and tests of differences, for figures over splits."""
