"""The documentation's examples: code blocks, command lines, and the output shown with them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FIRST = ("README.md", "docs/results.md")  # others stand on their data sets and runs
OTHERS = {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")} - {*FIRST}
PAGES = (*FIRST, *sorted(OTHERS))
FENCE = re.compile(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
OURS_AND_OTHERS = "$ agiqa dvc ray torchrun accelerate srun make pip export git cd aws"
STARTS = ("AGIQA_STORE=", *(f"{word} " for word in OURS_AND_OTHERS.split(" ")))


@dataclass(frozen=True)
class Command:
    """A command line of a page, and what the page says that it prints."""

    page: str
    words: tuple[str, ...]
    output: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def code_blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a language."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [match[4] for match in FENCE.finditer(text) if match[3] == language]


def named_blocks(page: str) -> list[tuple[str, str]]:
    """Files that a page shows: the name ends the line above the block, as in: `hands.yaml`:"""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.findall(r"`(\S+\.yaml)`:\n\n```yaml\n(.*?)```", text, re.DOTALL)


def commands(page: str) -> list[Command]:
    """Command lines in indented blocks and in blocks fenced as sh or console."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = [match[4] for match in FENCE.finditer(text) if match[3] in ("sh", "console", "")]
    indented = re.findall(r"(?:^(?: {4}|\t).*\n)+", FENCE.sub("", text), re.MULTILINE)
    found: list[Command] = []
    for block in (*blocks, *indented):
        found += _commands(page, block)
    return found


def _commands(page: str, block: str) -> Iterator[Command]:
    lines = re.sub(r" \\\n\s*", " ", block).splitlines()
    lines = [line.strip() for line in lines]
    for number, line in enumerate(lines):
        if not line.startswith(STARTS):
            continue
        shown: list[str] = []
        if line.startswith("$ "):
            for below in lines[number + 1 :]:
                if below.startswith("$ "):
                    break
                shown.append(below)
        words = shlex.split(line.removeprefix("$ "), comments=True)
        parts: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                break
            if word == "&&":
                parts.append([])
            else:
                parts[-1].append(word)
        for part in parts:
            last = part is parts[-1]
            yield Command(page, tuple(part), tuple(filter(None, shown)) if last else ())
