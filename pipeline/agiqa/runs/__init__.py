"""A run folder and all that is done with one: fit, evaluate, score, compare, cross, explain."""
