"""A notebook as Markdown: its text, its code, and the outputs that it keeps (text and PNG)."""

from collections.abc import Iterator, Mapping
from typing import Any


def as_markdown(notebook: Mapping[str, Any]) -> str:
    """Markdown of a notebook of format 4, as its JSON was read."""
    return "\n\n".join(_parts(notebook["cells"])) + "\n"


def _parts(cells: list[Mapping[str, Any]]) -> Iterator[str]:
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
        elif cell["cell_type"] == "code":
            magic, _, rest = source.partition("\n")
            shell = magic.startswith("%%bash")
            yield _fenced("sh", rest) if shell else _fenced("python", source)
            for output in cell["outputs"]:
                yield from _output(output)


def _output(output: Mapping[str, Any]) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield _fenced("text", "".join(output["text"]))
    elif output["output_type"] in ("execute_result", "display_data"):
        data = output["data"]
        if "image/png" in data:
            encoded = "".join(data["image/png"].split())
            yield f"![{_plain(data)}](data:image/png;base64,{encoded})"
        elif "text/plain" in data:
            yield _fenced("text", "".join(data["text/plain"]))


def _plain(data: Mapping[str, Any]) -> str:
    """What stands for a picture in words."""
    text = "".join(data.get("text/plain", "")).strip("<>")
    return "a plot" if "Figure" in text else text


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
