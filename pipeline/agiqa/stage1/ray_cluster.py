"""The engine of a Ray cluster: images that the ledger lacks, decoded on CPUs, run by actors.

Ray Data schedules, holds back what comes too fast, and repeats what a lost process had in hand; the
ledger of immutable segments is the checkpoint, and outlives the job and the cluster. A job is units
of work through decoding tasks and a pool of actors, results back; what runs on the nodes is in
`ray_nodes`. Where a node is lost for good, or Ray gives up, another job begins with what the ledger
lacks and the nodes that are left.

Nothing of Ray is imported before it is asked for: `pip install 'agiqa[ray]'`.
"""

import logging
import os
import pickle
import secrets
import socket
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.progress import track
from agiqa.stage1.ledger_rows import Job, LedgerRows, count, images_of
from agiqa.stage1.ray_nodes import Place, Result, Roll, Unit, UnitExtractor, Work, decode_unit
from agiqa.store.files import disk_errors
from agiqa.store.ledger.shelf import default_url

log = logging.getLogger(__name__)

BATCHES = 4  # of a unit of work, at most; its samples are one object in Ray's store
UNITS = 4  # for each actor, at least, so that all have work to the end
REACH_SECONDS = 10.0  # in which a cluster's address has to answer
FRUITLESS = 3  # jobs in a row that add nothing
STALLED = 20.0  # seconds without a result after which a lost node is not waited for
LOOK_SECONDS = 2.0  # between looks at the nodes


class LostError(AgiqaError):
    """A job that ended before its work was done; another one may go on."""


@dataclass(frozen=True)
class Pool:
    """The actors of a job, and what each takes of a node."""

    actors: int
    gpus: int = 0
    cpus: int = 0

    def __str__(self) -> str:
        return f"{self.actors} actors, {f'{self.cpus} CPUs' if self.cpus else 'a GPU'} each"


@dataclass(frozen=True)
class RayCluster:
    """Compute on a Ray cluster."""

    # `auto` or `HOST:6379`, of a cluster that this machine is in; "": $RAY_ADDRESS, a cluster that
    # runs on this machine, or a new one of this machine alone.
    address: str = ""
    # Processes with the model, on CPUs; on GPUs one each, at most so many; 0: one a GPU.
    actors: int = 0
    # A URL below which images lie by their paths in the table; "": all nodes see its folder.
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


def pool_of(actors: int) -> Pool:
    """Place the actors on the nodes that are there: one a GPU, else on equal shares of CPUs.

    Raises:
        AgiqaError: no GPU and no number of actors, or more of them than there is room for.
    """
    nodes = _nodes()
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes]
    names = some(sorted({node["NodeManagerAddress"] for node in nodes}))
    if gpus:
        return Pool(min(actors or gpus, gpus), gpus=1)
    if not actors:
        raise AgiqaError(
            f"the Ray cluster of {len(nodes)} nodes ({names}): expected GPUs, found none; give "
            "--actors N for N models on CPUs, or start Ray on a node that has one"
        )
    for share in range(max(cpus), 0, -1):
        if sum(count // share for count in cpus) >= actors:
            return Pool(actors, cpus=share)
    raise AgiqaError(
        f"--actors {actors}: the Ray cluster of {len(nodes)} nodes ({names}) has {sum(cpus)} CPUs; "
        "give at most as many"
    )


def most_actors() -> int:
    """How many actors the nodes that are there have room for, a CPU each."""
    return sum(int(node["Resources"].get("CPU", 0)) for node in _nodes())


class JobRunner:
    """An actor beside the driver that runs a job; to kill it ends all that it has under way."""

    def results(self, units: Sequence[Unit], work: Work, pool: Pool) -> Iterator[bytes]:
        """Pickled results as they come."""
        for row in _data_set(units, work, pool).iter_rows():
            yield row["result"]


def results_of(units: Sequence[Unit], work: Work, pool: Pool) -> Generator[Result, None, None]:
    """Results as they come; to close it ends the job.

    Raises:
        LostError: Ray gave up, or waits for a node that is gone.
    """
    import ray

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in _nodes()}
    runner = ray.remote(JobRunner).options(num_cpus=0, scheduling_strategy=beside()).remote()
    waiting = {"num_returns": "streaming", "_generator_backpressure_num_objects": 2 * pool.actors}
    stream = runner.results.options(**waiting).remote(units, work, pool)
    try:
        while (result := _next(stream, nodes)) is not None:
            yield pickle.loads(result)
    finally:
        ray.kill(runner)


def _next(stream: Any, nodes: Mapping[str, str]) -> bytes | None:
    """The next pickled result; None after the last. `nodes`: addresses by id, as the job began."""
    import ray

    waited = 0.0
    while not ray.wait([stream], timeout=LOOK_SECONDS)[0]:
        waited += LOOK_SECONDS
        lost = set(nodes) - {node["NodeID"] for node in _nodes()}
        if lost and waited >= STALLED:
            raise LostError(f"node {some([nodes[node] for node in lost])} is lost")
    try:
        result: bytes = ray.get(next(stream))
    except StopIteration:
        return None
    except Exception as error:  # of whatever Ray raises
        raise LostError(f"Ray ended the job: {one_line(error)}") from error
    return result


def _data_set(units: Sequence[Unit], work: Work, pool: Pool) -> Any:
    """Units through decoding tasks and the actors; on CPUs Ray makes both one."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    rows = [{"unit": pickle.dumps(unit, protocol=5)} for unit in units]
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(decode_unit, fn_kwargs={"work": work}, num_cpus=pool.cpus or 1)
        .map(
            UnitExtractor,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=pool.actors),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
    )


def beside() -> Any:
    """Where an actor runs beside this process, if there is room."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
