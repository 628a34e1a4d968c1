"""MkDocs hook: the pages that would otherwise be written twice.

- home is README.md;
- the tour is the notebook docs/tour.ipynb, with the outputs that it keeps;
- commands.md is what `agiqa COMMAND --help` says;
- a file or folder of the repository that a page links to (params.yaml, prompts/ …) becomes a page
  under source/, so that links work on the site as they do in the checkout.

Entries of the navigation whose page is not there are left out.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from site_commands import command_pages  # MkDocs finds what lies beside a hook
from site_notebook import as_markdown

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".py": "python", ".txt": "text"}
WRITTEN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "params.yaml")  # whoever links them
ORIGINS: dict[str, str] = {}  # page: the file of the repository that its links start from


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages, and whatever the pages link to."""
    ORIGINS.clear()
    notebook = json.loads((REPOSITORY / "docs/tour.ipynb").read_text(encoding="utf-8"))
    made = {"commands.md": command_pages(), "tour.md": as_markdown(notebook)}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    waiting = [*WRITTEN, *(f"docs/{each.src_uri}" for each in files.documentation_pages())]
    seen: set[str] = set()
    while waiting:
        origin = waiting.pop()
        if origin in seen:
            continue
        seen.add(origin)
        page = page_of(origin)
        ORIGINS[page] = origin
        name = origin.removeprefix("docs/")
        text = made[name] if name in made else _text(origin)
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=text))
        if not page.startswith("source/") or origin.endswith(".md"):
            waiting += [target for target in _targets(text, origin) if not _is_docs(target)]
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what the checkout does not have (yet)."""
    config.nav = _present(config.nav)
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links into the repository at their pages."""
    origin = ORIGINS.get(page.file.src_uri)
    if origin is None or (page.file.src_uri.startswith("source/") and not origin.endswith(".md")):
        return markdown

    def turned(match: re.Match[str]) -> str:
        target = _target(match[2], origin)
        if target is None:
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return match[1] + posixpath.relpath(page_of(target), here) + (match[3] or "") + match[4]

    return LINK.sub(turned, markdown)


def page_of(path: str) -> str:
    """The page of a file or folder of the repository."""
    if path == "README.md":
        return "index.md"
    if _is_docs(path):
        return path.removeprefix("docs/")
    return f"source/{path if path.endswith('.md') else path + '.md'}"


def _is_docs(path: str) -> bool:
    return path.startswith("docs/")


def _target(link: str, origin: str) -> str | None:
    """The path in the repository that a link names; None for addresses."""
    if ":" in link or link.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if path == "docs/tour.ipynb":
        return "docs/tour.md"
    if not _is_docs(path) and not (REPOSITORY / path).exists():
        raise PluginError(f"{origin}: link to {link}: there is no {path} in the repository")
    return path


def _targets(text: str, origin: str) -> list[str]:
    found = (_target(match[2], origin) for match in LINK.finditer(text))
    return [path for path in found if path is not None]


def _text(path: str) -> str:
    """A file of the repository as Markdown; of a folder, every text file in it."""
    place = REPOSITORY / path
    if place.suffix == ".md":
        return place.read_text(encoding="utf-8")
    files = [place]
    if place.is_dir():
        files = sorted(each for each in place.iterdir() if each.suffix in LANGUAGES)
    parts = [f"# {path}"]
    for file in files:
        if place.is_dir():
            parts.append(f"## {file.name}")
        language = LANGUAGES.get(file.suffix, "text")
        parts.append(f"````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n````")
    return "\n\n".join(parts) + "\n"


def _present(entries: Any) -> list[Any]:
    """The navigation without pages that nothing makes, and without sections that are then empty."""
    kept = []
    for entry in entries:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            if inner := _present(value):
                kept.append({title: inner})
        elif _will_be(value):
            kept.append(entry)
    return kept


def _will_be(page: str) -> bool:
    if page in ("index.md", "commands.md", "tour.md"):
        return True
    if page.startswith("source/"):
        path = page.removeprefix("source/")
        return any((REPOSITORY / each).exists() for each in (path, path.removesuffix(".md")))
    return (REPOSITORY / "docs" / page).is_file()
