"""Where a long fit stands, on disk, so that it goes on after a stop at an epoch's end.

One folder for each split's fit, in the ledger's folder, which DVC neither sees nor clears:

    fit-<first 16 digits of the identity's digest>/
        identity.json          everything that determines the result
        state.safetensors      weights, optimiser, average; in its metadata epoch, curves and so on
        best-<epoch>.safetensors   the weights of the best epoch so far
        writer.lock, owner.json

The same settings on the same data find the folder again; anything else has another. Files are
written aside, fsynced and renamed, the best weights before the state that names them, so every
stop leaves a state that fits. No pickles.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.core.whole_files import sync_folder, write_file
from agiqa.store import default_root, digest
from agiqa.store.files import disk_errors
from agiqa.store.fingerprint import plain
from agiqa.store.ledger.lock import writer_lock

log = logging.getLogger(__name__)

Model = TypeVar("Model")

LAYOUT = 1
STATE, IDENTITY, RECORD = "state.safetensors", "identity.json", "record"


class Saved(NamedTuple):
    """What `save` was given last."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]  # epoch, best_epoch and what else the training wants to know


class FitState:
    """The state of one fit; one process writes it, the others of the same fit may read."""

    def __init__(self, identity: Mapping[str, object], ledger: Path | None = None) -> None:
        self.identity = {"format": "agiqa-fit", "layout": LAYOUT, **identity}
        root = ledger or default_root()
        self.folder = root / f"fit-{digest(self.identity)[:16]}"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the only right to write; what is still being written is finished at the end.

        Raises:
            AgiqaError: another process fits the same, or the disk fails.
        """
        with disk_errors("create", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with writer_lock(self.folder):
            path = self.folder / IDENTITY
            with disk_errors("write", path):
                write_file(path, (json.dumps(plain(self.identity), indent=2) + "\n").encode())
            try:
                yield
            finally:
                self.wait()

    def load(self) -> Saved | None:
        """The last state, or None where there is none (or none that can be read: logged)."""
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                record = parse_json(file.metadata()[RECORD])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.best(record)
        except (SafetensorError, ValueError, KeyError, TypeError, AgiqaError) as error:
            log.warning("%s: damaged (%s); this fit starts over.", path, error)
            return None
        return Saved(tensors, record)

    def save(
        self,
        tensors: Mapping[str, Tensor],
        record: Mapping[str, Any],
        best: Mapping[str, Tensor] | None,
    ) -> None:
        """Replace the state by a copy of this one, while the training goes on.

        Args:
            tensors: what the next epoch starts from.
            record: JSON; `best_epoch` names the epoch whose weights are kept.
            best: the weights of that epoch, if it is the one that has just ended.
        """
        self.wait()
        ours = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in (best or {}).items()}
        self._writing = self._pool.submit(self._write, ours, dict(record), kept)

    def wait(self) -> None:
        """Until the last `save` is on the disk; raises what went wrong with it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def best(self, record: Mapping[str, Any]) -> dict[str, Tensor]:
        """The best weights, mapped into memory."""
        path = self._best_path(int(record["best_epoch"]))
        try:
            weights: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise AgiqaError(f"{path}: cannot be read ({error}); remove its folder.") from error
        return weights

    def remove(self) -> None:
        """Forget the fit: its run is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(
        self, tensors: dict[str, Tensor], record: dict[str, Any], best: dict[str, Tensor]
    ) -> None:
        with disk_errors("save the fit in", self.folder):
            kept = self._best_path(int(record["best_epoch"]))
            if best:
                _write_tensors(kept, best, {})
            _write_tensors(self.folder / STATE, tensors, {RECORD: json.dumps(record)})
            for old in self.folder.glob("best-*"):
                if old != kept:
                    old.unlink()

    def _best_path(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"


class Fitted(NamedTuple, Generic[Model]):
    """What a fit comes to, and the states that may be forgotten once its run is written."""

    ensemble: Model
    curves: Sequence[Mapping[str, Any]]  # model, seed, epoch, train_loss, val_srcc, val_plcc
    states: tuple[FitState, ...] = ()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file aside, fsync it, and move it into place."""
    aside = path.with_name(path.name + ".partial")
    try:
        save_file(dict(tensors), aside, metadata=metadata)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except SafetensorError as error:  # it wraps what the disk said
        aside.unlink(missing_ok=True)
        raise OSError(None, str(error)) from error
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
