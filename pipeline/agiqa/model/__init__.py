"""Stage 2's models: the projection of cached vectors, the mixture of experts, the ridge baseline."""
