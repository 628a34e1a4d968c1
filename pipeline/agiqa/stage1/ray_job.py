"""One job of Ray Data: units of work through decoding tasks and a pool of actors, results back."""

import pickle
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.stage1.ray_nodes import Result, Unit, UnitExtractor, Work, decode_unit

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
