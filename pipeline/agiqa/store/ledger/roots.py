"""Where ledgers lie, and shelves in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from agiqa.core.urls import folder_name, is_url
from agiqa.store.durable import disk_errors
from agiqa.store.fingerprint import Fingerprint, digest

SHORT = 16  # digits of the digest in a shelf's name
PIXELS = "pixels.u8"  # of decoded images, which lie beside shelves (stage2/paper/pixels.py)


def default_root() -> Path:
    """The ledger's folder: $AGIQA_STORE, or `ledger` in the user's cache folder.

    Where $AGIQA_STORE is a URL (../shared/sharing.py), a folder for it in the user's cache folder.
    """
    if url := default_url():
        return platformdirs.user_cache_path("agiqa") / "shared" / folder_name(url)
    if folder := os.environ.get("AGIQA_STORE"):
        return Path(folder).expanduser()
    return own_root()


def own_root() -> Path:
    """The ledger's folder where nothing else is said."""
    return platformdirs.user_cache_path("agiqa") / "ledger"


def other_roots(root: Path) -> list[Path]:
    """The user's other ledgers: the own one, and those for URLs."""
    shared = platformdirs.user_cache_path("agiqa") / "shared"
    roots = [own_root(), *(sorted(shared.iterdir()) if shared.is_dir() else ())]
    return [path for path in roots if path.resolve() != root.resolve()]


def default_url() -> str | None:
    """The URL of the shared ledger, where $AGIQA_STORE is one."""
    store = os.environ.get("AGIQA_STORE", "")
    return store.rstrip("/") if is_url(store) else None


def shelf_folder(root: Path, fingerprint: Fingerprint) -> Path:
    """Where the shelf of `fingerprint` lies under `root`, whether it is there or not."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", str(fingerprint.get("extractor", "vectors")))
    return root / f"{name.strip('-.') or 'vectors'}-{digest(fingerprint)[:SHORT]}"


def find_shelves(root: Path) -> list[Path]:
    """The folders under `root`, in order: shelves, and whatever else was put there.

    Hidden ones are left out: a shelf that is being made lies in one.
    """
    if not root.exists():
        return []
    with disk_errors("read", root):
        return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
