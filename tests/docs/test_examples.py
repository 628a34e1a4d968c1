"""The documentation's examples do what it says: Python blocks and command lines are run, on tiny
models in place of the big ones; where output is shown, the real one has its words.

What is not run is listed with its reason, and its options at least are real ones.
"""

import re
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from agiqa.cli import main
from kit.documentation import PAGES, Command, code_blocks, commands, named_blocks

# First words that are not ours, and who runs them.
OTHERS = {
    "dvc": "tests/store/shared/test_dvc.py runs DVC in a repository of its own",
    "git": "not ours",
    "make": ".ci/run",
    "pip": ".ci/run",
    "export": "an assignment",
    "torchrun": "tests/stage1/test_processes.py starts ranks",
    "accelerate": "the same",
    "srun": "the same; there is no Slurm here",
    "ray": "tests/stage1/ray_engine starts clusters",
    "cd": "of somebody else's repository",
    "aws": "needs an account",
    "curl": "asks a server: tests/views/server",
}
# Parts of our own command lines.
NOT_RUN = {
    "my-images": "needs nano: tests/runs/test_default_scorer.py",
    "scores.parquet": "of those; tests/runs/test_select.py",
    "shards/": "the same; tests/runs/test_image_inputs.py reads tars",
    "best-of-each": "of those scores; tests/runs/test_select.py",
    "--engine ray": "needs Ray: tests/stage1/ray_engine",
    "agiqa publish": "its model would have to be on the hub: tests/runs/test_publish.py",
    "hf://": "needs a hub: the same",
    "s3://": "needs a bucket: tests/store/shared has one",
    "mplug-owl2": "16 GB of weights; tests/stage1/mplug_owl2 has a tiny checkpoint",
    "--scorer": "gigabytes of weights; tests/runs/test_lmm_scorer.py has tiny ones",
    "agiqa serve": "goes on until it is stopped: tests/views/server",
    "agiqa-3k/authors": "the authors' weights; tests/stage2/paper imports tiny ones",
    "agiqa-3k/paper": "the paper's network; tests/stage2/paper trains a tiny one",
    "visual.tokens": "the tiny model has three blocks; tests/stage2/tuned trains one",
    "--preset tuned": "the same",
    "--extractor": "an entry that the reader writes into params.yaml; tests/dvc_matrix has two",
    "aigciqa2023": "AGIQA-3K alone is here; tests/runs/test_several.py trains and tests across",
    "--on koniq-10k": "the same",
    "fit.vectors": "its settings stand in params.yaml; tests/stage2/light/test_training.py",
    "fit.answers": "the same",
    "import-pt": "tests/store/upkeep/test_import_pt.py has reference files",
    "semantic.prompts=shows": "its answers are words; the tiny model's tokens are letters",
    "semantic.prompts=aspects": "its answers are words; the tiny model's tokens are letters",
    "cache/demo": "tests/data/datasets/test_demo.py; too many images for this test",
}
NOT_RUN_CODE = {  # in Python blocks
    "httpx": "asks a server: tests/views/server asks it the same",
    "pyiqa": "for non-commercial use only, so not among our packages",
    "create_scorer()": "needs nano: tests/runs/test_default_scorer.py",
}
INSTEAD = {"FOLDER": "data/agiqa-3k"}
OTHER_WORDS = {
    "cache ls": "looks otherwise off a terminal: tests/store/upkeep/test_stores.py",
    "cache verify --repair": "shown with damage, of which there is none: tests/store/upkeep",
    "cache merge usb/ledger": "shown once with damaged rows: tests/store/upkeep/test_merge.py",
    "cache gc": "shown with something to free: tests/store/upkeep/test_stores.py",
}
BEFORE = {"docs/cache.md": "cache convert cache/agiqa-3k/nano.zarr cache/agiqa-3k/nano.h5"}


@pytest.mark.slow
def test_the_pages_do_what_they_show(workspace: Path) -> None:
    """In order, README first, as a reader would: later pages stand on what the first ones made."""
    for page in PAGES:
        _follow(page)


def _follow(page: str) -> None:
    for file in Path().glob("nano.*"):  # exported by an earlier page
        file.unlink()
    if page in BEFORE:
        assert CliRunner().invoke(main, BEFORE[page].split()).exit_code == 0
    for file, block in named_blocks(page):
        Path(file).write_text(_with_the_tiny_model(block))
    for command in commands(page):
        words = [INSTEAD.get(word, word) for word in command.words]
        if words[:3] == ["agiqa", "fit", "mine"] and "--target" not in words:
            words += ["--target", "mos"]  # README's own; elsewhere it goes without saying
        if words[:2] == ["agiqa", "fit"] and "--replace" not in words:
            words += ["--replace"]  # pages fit the same run, each for its own reader
        if words[:3] == ["agiqa", "splits", "import"] and "--replace" not in words:
            words += ["--replace"]  # likewise
        if words[0] != "agiqa":
            assert words[0] in OTHERS or "=" in words[0], command.line
        elif any(part in command.line for part in NOT_RUN):
            _require_real_options(command)
        else:
            done = CliRunner().invoke(main, words[1:])
            said = f"{page}: {command.line}: {done.output} {done.exc_info}"
            assert done.exit_code == 0, said
            _require_words(command, done.output)
    names: dict[str, object] = {}
    for block in code_blocks(page, "python"):
        if not any(part in block for part in NOT_RUN_CODE):
            exec(compile(block, page, "exec"), names)


def test_reasons_are_needed() -> None:
    """A reason that no command has any more would hide a command to come."""
    lines = [command.line for page in PAGES for command in commands(page)]
    for part in NOT_RUN:
        assert any(part in line for line in lines), part
    blocks = [block for page in PAGES for block in code_blocks(page, "python")]
    for part in NOT_RUN_CODE:
        assert any(part in block for block in blocks), part


def _with_the_tiny_model(block: str) -> str:
    """A file that the page shows; settings stand on those here, and name the model that is here."""
    shown = yaml.safe_load(block)
    if "semantic" not in shown:
        return block
    here = yaml.safe_load(Path("params.yaml").read_text())
    assert shown.keys() <= here.keys()
    shown["semantic"]["model"] = here["semantic"]["model"]
    return yaml.safe_dump({key: values | shown.get(key, {}) for key, values in here.items()})


def _require_real_options(command: Command) -> None:
    """The command exists and knows each option; values are not looked at."""
    group: click.Command = main
    words = list(command.words[1:])
    while isinstance(group, click.Group):
        inner = group.get_command(click.Context(group), words[0])
        assert inner is not None, command.line
        group, words = inner, words[1:]
    known = {name for param in group.params for name in (*param.opts, *param.secondary_opts)}
    given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known, f"{command.line}: {given - known}"


def _require_words(command: Command, output: str) -> None:
    """The words of the first line that the page shows are in what is printed."""
    if command.output and not any(part in command.line for part in OTHER_WORDS):
        shown = set(re.findall(r"[A-Za-z]{3,}", command.output[0]))
        missing = shown - set(re.findall(r"[A-Za-z]{3,}", output))
        assert not missing, f"{command.line}: {missing} not in {output}"
