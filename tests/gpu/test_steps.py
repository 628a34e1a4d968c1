"""The script for a GPU (benchmarks/gpu) names scripts, tests and commands that exist."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

from agiqa.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def steps(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("steps")


@pytest.mark.parametrize("tiny", [True, False])
def test_steps_name_what_exists(steps: ModuleType, tiny: bool, tmp_path: Path) -> None:
    names = set()
    for step in steps.steps(tiny):
        assert {name for _, name in names}.issuperset(step.after)
        names.add((step.stage, step.name))
        if step.command[1:3] == ("-m", "agiqa"):
            command, context = main, click.Context(main)
            words = list(step.command[3:])
            while isinstance(command, click.Group):
                _, command, words = command.resolve_command(context, words)  # type: ignore
            command.make_context(
                step.name, [str(tmp_path) if w in ("DATA", "IPCE") else w for w in words]
            )
        elif step.command[1] != "-m":
            assert Path(step.command[1]).is_file()
    assert len(names) == len(list(steps.steps(tiny)))
    assert {stage for stage, _ in names} == steps.BUDGETS.keys()
    assert sum(steps.BUDGETS.values()) < 600  # of one call


def test_each_test_with_the_mark_is_run(steps: ModuleType) -> None:
    marked = {
        path.relative_to(REPOSITORY)
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text("utf-8") and path != Path(__file__)
    }
    listed = [Path(name) for name in steps.GPU_TESTS]
    assert all((REPOSITORY / path).exists() for path in listed)
    assert not [path for path in marked if not {path, *path.parents} & {*listed}]
