"""Stores at URLs: a ledger that machines share (sharing.py), packs that are read (remote.py)."""
