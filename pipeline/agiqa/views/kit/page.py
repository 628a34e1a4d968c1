"""HTML files that need nothing but themselves: templates, inlined assets and the policy on them.

A page forbids itself every request: its Content-Security-Policy names the hashes of the styles and
scripts that stand in it, and allows nothing else, so not even text from the data could run or fetch
something.
"""

import base64
import hashlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from agiqa.core.json_text import json_text
from agiqa.views.kit.number import in_percent, number

THEME = "kit/web/theme.css"


def render(
    template: str,
    content: Mapping[str, Any],
    styles: Sequence[str],
    scripts: Sequence[Markup] = (),
    any_style: bool = False,
) -> str:
    """Fill a template that extends `kit/page.html.j2`.

    Paths are below `views/`. `version`, `style`, `scripts` and `policy` are added to the content;
    styles follow the theme's; scripts are those of `bundle`, and pages without any have no pictures
    either; with `any_style` scripts may write styles, as Plotly does.
    """
    style = Markup("").join(map(asset, (THEME, *styles)))
    policy = [
        "default-src 'none'",
        "style-src " + ("'unsafe-inline'" if any_style else _hash(style)),
    ]
    if scripts:
        policy.insert(1, "img-src data:")
        policy.append(f"script-src {' '.join(map(_hash, scripts))}")
    page: str = (
        _templates()
        .get_template(template)
        .render(
            content,
            version=importlib.metadata.version("agiqa"),
            style=style,
            scripts=scripts,
            policy=Markup("; ".join([*policy, "base-uri 'none'", "form-action 'none'"])),
        )
    )
    return page


def asset(name: str) -> Markup:
    """The text of a style or script by its path in `views/`, to stand in a page as it is."""
    return Markup(files("agiqa.views").joinpath(name).read_text("utf-8"))


def bundle(*names: str) -> Markup:
    """Scripts by their paths in `views/` as one, with their imports and exports taken out.

    They are modules, which the served page loads as such; in a file all stand in one scope, each
    after those that it imports.
    """
    text = "\n".join(map(asset, names))
    return Markup('"use strict";\n' + re.sub(r"^(import .*;\n|export )", "", text, flags=re.M))


def inert(value: object) -> Markup:
    """JSON that may stand in a script: no `<` at all, so no tag can begin or end in it."""
    return Markup(json_text(value, compact=True).replace("<", "\\u003c"))


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("agiqa.views", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "in_percent": in_percent}
    return environment


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
