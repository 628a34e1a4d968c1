"""dvc.yaml and params.yaml say what the code does."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agiqa.core.params import Params, Source, load
from agiqa.data.datasets import OFFICIAL

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    return found


def test_params_file_and_code_have_the_same_defaults() -> None:
    """The wheel has no params.yaml; its users must get the same numbers."""
    written = load(REPOSITORY / "params.yaml")
    assert list(written.sources) == list(OFFICIAL)
    assert all(written.sources[name] == Source(kind=name) for name in OFFICIAL)
    assert Params(sources=written.sources) == written


def test_every_setting_is_written_down() -> None:
    tree = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section in ("prepare", "splits", "semantic", "visual", "fit", "paper"):
        assert tree[section].keys() == vars(getattr(Params(), section)).keys()


def test_every_stage_describes_itself_and_is_a_matrix(stages: dict[str, Any]) -> None:
    assert list(stages) == [
        "sources",
        "prepare",
        "extract_semantic",
        "extract_other",
        "extract_visual",
        "fit",
        "fit_other",
        "evaluate",
        "evaluate_other",
        "report",
        "report_other",
    ]
    for name, stage in stages.items():
        assert stage["desc"], name
        assert stage["matrix"]["dataset"] == "${datasets}"
        assert stage["cmd"].startswith("agiqa "), name


def test_the_code_that_stages_depend_on_exists(stages: dict[str, Any]) -> None:
    for name, stage in stages.items():
        for dependency in stage.get("deps", []):
            if dependency.startswith("pipeline/"):
                assert (REPOSITORY / dependency).exists(), f"{name}: {dependency}"


# What a stage's command imports and yet is no dependency of it, since it changes no number.
EXEMPT = {
    "agiqa": "loads by name what programs ask for",
    "agiqa.cli": "reads arguments, prints results; the command's own module is followed",
    "agiqa.runs.lmm_scorer": "measures a published scorer, as no stage does",
    "agiqa.views.kit.number": "says how a figure is printed",
}


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(
        module == package or module.startswith(f"{package}.")
        for package in packages
        if package != "agiqa"
    )


def _imports(path: Path) -> Iterator[str]:
    """Modules of agiqa that a file imports, in functions too, unless for types alone."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, path
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _closure(command: str, exempt: Iterable[str]) -> set[str]:
    """Files below pipeline/ that `agiqa COMMAND` imports, by itself or through others."""
    code = REPOSITORY / "pipeline"
    seen: set[str] = set()
    found: set[str] = set()
    todo = [f"agiqa.cli.{command}"]
    while todo:
        module = todo.pop()
        if module in seen or (seen and (module == "agiqa" or _within(module, exempt))):
            continue
        seen.add(module)
        base = code / module.replace(".", "/")
        path = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None
        )
        if path is None:  # a name in a module
            continue
        if len(seen) > 1:
            found.add(path.relative_to(REPOSITORY).as_posix())
            todo.append(module.rpartition(".")[0])
        todo += [each for each in _imports(path) if each.startswith("agiqa")]
    return found


@pytest.mark.parametrize("name", ["prepare", "extract_semantic", "extract_visual", "fit",
                                  "evaluate", "report"])  # fmt: skip
def test_an_edit_of_what_a_stage_runs_runs_it_again(stages: dict[str, Any], name: str) -> None:
    command = stages[name]["cmd"].split()[1]
    needed = _closure(command, EXEMPT)
    code = [dep for dep in stages[name]["deps"] if dep.startswith("pipeline/")]
    assert code == sorted(code)
    missing = {file for file in needed if not any(
        file == each or file.startswith(f"{each}/") for each in code)}  # fmt: skip
    lines = sorted(f"      - {file}" for file in missing)
    assert not missing, "\n".join(
        [f"dvc.yaml: add to the deps of {name} (and {name}_other), or exempt them above:", *lines]
    )
    idle = {each for each in code if not any(
        file == each or file.startswith(f"{each}/") for file in needed)}  # fmt: skip
    assert not idle, f"dvc.yaml, stage {name}: its command does not import these"


def test_the_walk_over_imports_finds_what_functions_import() -> None:
    found = _closure("fit", EXEMPT)
    for file in ("data/metrics.py", "stage2/light/training.py", "runs/files.py",
                 "core/params.py", "data/datasets/table.py", "store/__init__.py",
                 "stage2/light/mixture.py"):  # fmt: skip
        assert f"pipeline/agiqa/{file}" in found
    assert _closure("fit", [*EXEMPT, "agiqa.runs.fit"]) < found


def test_a_prompt_touches_only_the_semantic_store(stages: dict[str, Any]) -> None:
    readers = [
        name
        for name, stage in stages.items()
        if any(dependency.startswith("prompts") for dependency in stage.get("deps", []))
    ]
    assert readers == ["extract_semantic", "extract_other"]


def test_a_learning_rate_touches_only_fit(stages: dict[str, Any]) -> None:
    readers = [name for name, stage in stages.items() if "fit" in stage.get("params", [])]
    assert readers == ["fit", "fit_other"]


@pytest.mark.parametrize("name", ["extract_semantic", "fit", "evaluate", "report"])
def test_other_extractors_have_the_same_stages(stages: dict[str, Any], name: str) -> None:
    """What a stage depends on is written twice; here it is held together."""

    def places(stage: dict[str, Any], run: str, store: str) -> str:
        listed = json.dumps([stage[key] for key in ("deps", "outs", "metrics", "plots")
                             if key in stage])  # fmt: skip
        return listed.replace(run, "RUN").replace(store, "STORE")

    ours = stages[name]
    theirs = stages[f"{name.removesuffix('_semantic')}_other"]
    assert theirs["matrix"] == ours["matrix"] | {"extractor": "${extractors}"}
    run = "runs/${item.dataset}/%s${item.protocol}"
    store = "/%s.${semantic.format}"
    one = places(ours, run % "", store % "${semantic.name}")
    other = places(theirs, run % "${item.extractor}/", store % "${item.extractor}")
    other = other.replace(", ${item.extractor}, ", ", ")  # the scatter's title
    assert one.replace("prompts/${semantic.prompts}.yaml", "prompts") == other
    assert {*theirs.get("params", [])} - {*ours.get("params", [])} <= {
        "extractors.${item.extractor}"
    }


def test_pages_name_files_that_are_there() -> None:
    """A move forgets the pages, which name files by the end of their path."""
    folders = ("pipeline", "tests", "benchmarks", "docs")
    files = [path.as_posix() for name in folders for path in (REPOSITORY / name).rglob("*.py")]
    for page in ("README.md", "CONTRIBUTING.md", "tests/hostile/README.md"):
        text = (REPOSITORY / page).read_text("utf-8").replace("whisper/transcribe.py", "")
        for name in sorted(set(re.findall(r"(?<![\w./])[\w-]+(?:/[\w-]+)+\.py\b", text))):
            assert any(path.endswith(f"/{name}") for path in files), f"{page}: {name}"
