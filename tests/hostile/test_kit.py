"""The limits in which the other tests here run do hold, and a made attack does show."""

from collections.abc import Callable


def test_a_command_that_does_not_exist_ends_in_one_line(attack: Callable) -> None:
    assert attack("score", "no.png", "--run", "nowhere").error.startswith("Error: ")
