"""Stage 2's models: projections of cached vectors, the mixture of experts, ridge."""
