"""Vectors from any image-text model of transformers: texts, shared passes, pooling."""
