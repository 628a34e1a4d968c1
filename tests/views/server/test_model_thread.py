"""The queue before the models: together, in turn, bounded, and dropped when nobody waits."""

import threading
from collections.abc import Iterator, Sequence

import pytest
from starlette.exceptions import HTTPException

from agiqa.core.errors import AgiqaError
from agiqa.views.server.limits import Limits
from agiqa.views.server.worker import ModelThread


class Slowly:
    """Doubles numbers, once it may; notes what it was asked together."""

    def __init__(self) -> None:
        self.may, self.began = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.began.set()
        assert self.may.wait(120)
        self.batches.append(list(numbers))
        return [AgiqaError(f"not {n}") if n < 0 else 2 * n for n in numbers]


@pytest.fixture
def slowly() -> Slowly:
    return Slowly()


@pytest.fixture
def thread(slowly: Slowly) -> Iterator[ModelThread[int, int]]:
    made: ModelThread[int, int] = ModelThread(slowly, Limits(batch=4, queue=6, gather_seconds=0.0))
    made.start()
    yield made
    slowly.may.set()
    made.stop()
    made.join(10)


def test_what_waits_is_answered_together_up_to_a_batch(
    thread: ModelThread[int, int], slowly: Slowly
) -> None:
    first = thread.ask([1])
    assert slowly.began.wait(120)
    rest = thread.ask([2, -3, 4]) + thread.ask([5, 6])
    slowly.may.set()
    assert first[0].result(10) == 2
    assert [each.exception(10) and str(each.exception()) for each in rest] == [
        None, "not -3", None, None, None,
    ]  # fmt: skip
    assert [rest[place].result() for place in (0, 2, 3, 4)] == [4, 8, 10, 12]
    assert slowly.batches == [[1], [2, -3, 4, 5], [6]]


def test_a_full_queue_takes_all_of_a_request_or_none(
    thread: ModelThread[int, int], slowly: Slowly
) -> None:
    thread.ask([1])
    assert slowly.began.wait(120)
    thread.ask([2, 3, 4, 5])
    with pytest.raises(HTTPException, match="4 images wait, of at most 6"):
        thread.ask([6, 7, 8])
    assert thread.length == 4
    thread.ask([6, 7])


def test_cancelled_work_is_not_begun(thread: ModelThread[int, int], slowly: Slowly) -> None:
    first = thread.ask([1])
    assert slowly.began.wait(120)
    gone, kept = thread.ask([2, 3])
    other = thread.run(lambda: slowly.batches.append([99]))
    assert gone.cancel()
    assert other.cancel()
    slowly.may.set()
    assert kept.result(10) == 6
    assert first[0].result() == 2
    assert slowly.batches == [[1], [3]]


def test_explanations_take_turns_with_batches(
    thread: ModelThread[int, int], slowly: Slowly
) -> None:
    thread.ask([1])
    assert slowly.began.wait(120)
    thread.ask([2, 3, 4, 5])
    (last,) = thread.ask([6])
    between = thread.run(lambda: len(slowly.batches))
    slowly.may.set()
    assert last.result(10) == 12
    assert between.result(10) < 3  # not after all the scores


def test_a_batch_that_breaks_tells_each_of_it_and_the_next_goes_on() -> None:
    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        return [1 // number for number in numbers]

    made: ModelThread[int, int] = ModelThread(answer, Limits())
    made.start()
    (broken,) = made.ask([0])
    assert isinstance(broken.exception(10), ZeroDivisionError)
    (fine,) = made.ask([1])
    assert fine.result(10) == 1
    made.stop()
    made.join(10)
    with pytest.raises(HTTPException, match="stopping"):
        made.ask([1])


def test_models_that_do_not_load_are_told() -> None:
    told: list[BaseException] = []

    def fail() -> None:
        raise AgiqaError("no weights")

    made: ModelThread[int, int] = ModelThread(lambda n: list(n), Limits(), fail, told.append)
    made.start()
    made.stop()
    made.join(10)
    assert [str(each) for each in told] == ["no weights"]
    assert not made.ready.is_set()
