"""The paper's network, trained on pixels and cached semantic vectors."""
