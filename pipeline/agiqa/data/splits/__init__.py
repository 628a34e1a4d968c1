"""Splits as files: who trains, who selects, who is tested, by a named protocol, with its leaks."""
