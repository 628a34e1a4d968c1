"""Count what the house holds: `make house`, or `python docs/making/house.py CHECKOUT`.

Product lines by floor (Python, JavaScript, CSS and HTML, without the vendored Plotly), tests, and
what HOUSE rules are about: layers, the longest chain of imports, small modules, long functions,
docstrings that are riddles.
"""

import ast
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import grimp

LANGUAGES = (".py", ".js", ".css", ".html", ".j2")
LONG = 40  # lines of a function, its docstring not counted
SMALL = 60  # lines of a module
FEW = 5  # words of a docstring


def main(root: Path) -> None:
    """Print the counts of the checkout in `root`."""
    package = root / "pipeline/agiqa"
    product = [
        path
        for path in package.rglob("*.*")
        if path.suffix in LANGUAGES and ".min." not in path.name
    ]
    modules = [path for path in product if path.suffix == ".py"]
    tests = list((root / "tests").rglob("*.py"))
    floors = Counter[str]()
    for path in product:
        inner = path.relative_to(package).parts
        floors[inner[0] if len(inner) > 1 else "(top)"] += lines(path)
    for floor, count in sorted(floors.items()):
        print(f"{floor:38}{count:8,}")
    layers = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = [name for contract in layers["contracts"] for name in contract.get("layers", ())]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    counts = {
        "product lines": floors.total(),
        "product files": len(product),
        "test lines": sum(map(lines, tests)),
        "test files": len(tests),
        "modules at the top of the package": sum(path.parent == package for path in modules),
        f"modules under {SMALL} lines": sum(
            lines(path) < SMALL for path in modules if path.name != "__init__.py"
        ),
        "layers": len(names),
        "names in them": sum(1 + name.count("|") + name.count(":") for name in names),
        "modules in the longest import chain": longest_chain(root),
        f"functions over {LONG} lines": sum(map(long_functions, trees)),
        f"docstrings under {FEW} words": sum(map(short_docstrings, trees)),
    }
    for what, count in counts.items():
        print(f"{what:38}{count:8,}")


def lines(path: Path) -> int:
    """Count the lines of a file."""
    return path.read_bytes().count(b"\n")


def longest_chain(root: Path) -> int:
    """Count the modules of the longest chain in which each imports the next, types left out."""
    sys.path.insert(0, str(root / "pipeline"))
    graph = grimp.build_graph("agiqa", exclude_type_checking_imports=True, cache_dir=None)
    above: set[str] = set()

    @cache
    def below(module: str) -> int:
        above.add(module)
        imported = graph.find_modules_directly_imported_by(module) - above
        deepest = max((below(name) for name in sorted(imported)), default=0)
        above.remove(module)
        return deepest + 1

    return max(map(below, sorted(graph.modules)))


def long_functions(tree: ast.Module) -> int:
    """Count functions with more than LONG lines."""
    return sum(
        node.end_lineno - node.lineno + 1 - docstring_lines(node) > LONG
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's docstring."""
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def short_docstrings(tree: ast.Module) -> int:
    """Count docstrings with fewer than FEW words."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return sum(text is not None and len(text.split()) < FEW for text in texts)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
