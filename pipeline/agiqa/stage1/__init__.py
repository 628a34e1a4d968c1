"""Stage 1: images to vectors, by an LMM or a visual backbone, into the ledger and packs."""
