"""The engine of a Ray cluster: images that the ledger lacks, decoded on CPUs, run by actors.

Ray Data schedules, holds back what comes too fast, and repeats what a lost process had in hand; the
ledger of immutable segments is the checkpoint, and outlives the job and the cluster. What runs on
the nodes is in `ray_nodes`, the job in `ray_job`. Where a node is lost for good, or Ray gives up,
another job begins with what the ledger lacks and the nodes that are left.

Nothing of Ray is imported before it is asked for: `pip install 'agiqa[ray]'`.
"""

import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.progress import track
from agiqa.stage1.ledger_rows import Job, LedgerRows, count, images_of
from agiqa.stage1.ray_job import LostError, Pool, beside, most_actors, pool_of, results_of
from agiqa.stage1.ray_nodes import Place, Result, Roll, Unit, Work
from agiqa.store.files import disk_errors
from agiqa.store.ledger.shelf import default_url

log = logging.getLogger(__name__)

BATCHES = 4  # of a unit of work, at most; its samples are one object in Ray's store
UNITS = 4  # for each actor, at least, so that all have work to the end
REACH_SECONDS = 10.0  # in which a cluster's address has to answer
FRUITLESS = 3  # jobs in a row that add nothing


@dataclass(frozen=True)
class RayCluster:
    """Compute on a Ray cluster.

    Args:
        address: `auto` or `HOST:6379`, of a cluster that this machine is in; "": $RAY_ADDRESS, a
            cluster that runs on this machine, or a new one of this machine alone.
        actors: processes with the model, on CPUs; on GPUs one each, at most so many; 0: one a GPU.
        images: a URL below which images lie by their paths in the table; "": all nodes see the
            table's folder.
    """

    address: str = ""
    actors: int = 0
    images: str = ""

    def changed(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Nothing beforehand: nodes compare an image's bytes as they decode them."""
        return {}

    def compute(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Add to the ledger what the jobs lack; by id, why an image has not got all its vectors.

        Raises:
            AgiqaError: no cluster, a failure of a node, which the line names, or images that one
                does not see; finished rows are in the ledger.
        """
        done, ids, fruitless, why = Result(images=0), images_of(jobs), 0, ""
        _connect(self.address)
        pool = pool_of(self.actors)
        while jobs:
            before = count(jobs)
            try:
                self._run(rows, jobs, done, pool)
            except LostError as error:
                why = f": {error}"
                log.warning("%s; going on with what the ledger lacks", error)
                pool = pool_of(min(self.actors, most_actors()))
            finally:
                rows.pull_again(ids)
            rest = (job.without(done.bad) for job in rows.missing(ids))
            jobs = [job for job in rest if job.image_ids]
            fruitless = 0 if count(jobs) < before else fruitless + 1
            if fruitless == FRUITLESS:
                raise AgiqaError(
                    f"{fruitless} jobs of Ray's in a row added no vector{why}; look at its logs "
                    "(/tmp/ray/session_latest/logs on each node); finished rows are kept"
                )
        _require_seen(done.unseen, rows)
        return done.bad

    def _run(self, rows: LedgerRows, jobs: Sequence[Job], done: Result, pool: Pool) -> None:
        """Run one job of Ray's; rows that its nodes cannot write are written here.

        What is bad or unseen is added to `done`; AgiqaError where a node failed.
        """
        units = list(self._units(rows, jobs, pool))
        what = f"Extract {rows.extractor.name}, {pool}"
        total = sum(len(unit.places) for unit in units)
        with ExitStack() as stack:
            writers = rows.writers(stack, jobs)
            work = stack.enter_context(_shared_work(rows))
            results = stack.enter_context(closing(results_of(units, work, pool)))
            for result in track(results, what, total=total, size=lambda result: result.images):
                for new in result.rows:
                    writers[new.vector].add(rows.row_ids(new.vector, new.image_ids), new.vectors)
                if result.error:
                    raise AgiqaError(result.error)
                done.bad |= result.bad
                done.unseen |= result.unseen

    def _units(self, rows: LedgerRows, jobs: Sequence[Job], pool: Pool) -> Iterator[Unit]:
        size, images, number = rows.extractor.batch_size, len(images_of(jobs)), 0
        size *= max(1, min(BATCHES, images // (size * UNITS * pool.actors)))
        for job in jobs:
            for start in range(0, len(job.image_ids), size):
                names = job.image_ids[start : start + size]
                yield Unit(number, job.wanted, {name: self._place(rows, name) for name in names})
                number += 1

    def _place(self, rows: LedgerRows, name: str) -> Place:
        source = rows.sources[name]
        below = f"{self.images.rstrip('/')}/{source.path.as_posix()}"
        address = below if self.images else str(source.path.absolute())
        return Place(source.image_id, address, source.image_prompt)


def _require_seen(unseen: Mapping[str, str], rows: LedgerRows) -> None:
    """Refuse files that are here and that a node, by id, does not see: its disk is another."""
    here = [name for name in unseen if rows.sources[name].path.exists()]
    if here:
        nodes = some(sorted({unseen[name] for name in here}))
        raise AgiqaError(
            f"node {nodes}: {len(here)} images are not there that this machine has, the first "
            f"{rows.sources[here[0]].path}: mount their disk at the same path on every node, "
            "or give --images-at URL; all other vectors are kept"
        )


@contextmanager
def _shared_work(rows: LedgerRows) -> Iterator[Work]:
    """What the nodes have to know; a file in the ledger tells them whether its disk is theirs."""
    import ray

    url = (default_url() or "") if rows.shared else ""
    for shelf in rows.shared:
        shelf.describe()
    token = rows.root / f".ray-{secrets.token_hex(8)}"
    with disk_errors("write", token):
        token.touch()
    try:
        yield Work(
            rows.extractor.recipe(),
            tuple(dict(vector.fingerprint) for vector in rows.extractor.vectors),
            version("agiqa"),
            rows.root.resolve(),
            token.name,
            url,
            ray.remote(Roll).options(num_cpus=0, scheduling_strategy=beside()).remote(),
        )
    finally:
        with suppress(OSError):
            token.unlink()


def _connect(address: str) -> None:
    """Join the cluster or start one, unless this process is in one.

    Raises:
        AgiqaError: no Ray here, no cluster there, or one of other versions.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import pyarrow  # noqa: F401  # which Ray Data needs
        import ray
    except ImportError as error:
        raise AgiqaError(
            f"--engine ray needs Ray ({one_line(error)}): pip install 'agiqa[ray]'"
        ) from error
    if ray.is_initialized():
        return
    try:
        _require_answer(address or os.environ.get("RAY_ADDRESS", ""))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of whatever Ray raises
        raise AgiqaError(
            f"Ray at {address or 'this machine'}: expected a cluster of the same Ray and Python, "
            f"found: {one_line(error)}; start one (`ray start --head`), join one (`ray start "
            "--address HEAD:6379`), or leave --ray-address out"
        ) from error


def _require_answer(address: str) -> None:
    """Refuse a host and port where nothing listens: Ray would try for many minutes."""
    if address.startswith("ray://"):
        raise ConnectionError(
            "a client's address, over which Ray Data does not run; be on a node, or submit a job"
        )
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
