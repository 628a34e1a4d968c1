"""`dvc`, but that libyaml reads and writes dvc.lock: DVC's own YAML takes two seconds a stage where
there are sixty, for comments and line breaks that a lock does not have."""

import sys
from pathlib import Path
from typing import Any, TextIO

import yaml
from dvc.cli import main
from dvc.utils import strictyaml
from dvc.utils.serialize import _yaml

parse, parse_for_update, dump = strictyaml.parse_yaml, _yaml.parse_yaml_for_update, _yaml._dump


class Dumper(yaml.CSafeDumper):
    """Writes DVC's own kinds of mappings, too, and nothing as an alias."""

    def ignore_aliases(self, _: object) -> bool:
        return True


Dumper.add_multi_representer(dict, yaml.representer.SafeRepresenter.represent_dict)


def parse_quickly(text: str, path: str, typ: str = "safe") -> Any:
    """As DVC's `parse_yaml` has it."""
    if Path(path).name == "dvc.lock":
        return yaml.load(text, yaml.CSafeLoader) or {}
    return parse(text, path, typ)


def dump_quickly(tree: Any, stream: TextIO) -> None:
    """As DVC's `_dump` has it; `schema` stands in locks alone."""
    if "schema" in tree:
        yaml.dump(tree, stream, Dumper, sort_keys=False, allow_unicode=True)
    else:
        dump(tree, stream)


if __name__ == "__main__":
    strictyaml.parse_yaml = parse_quickly
    _yaml.parse_yaml_for_update = lambda text, path: parse_quickly(text, path, "rt")
    _yaml._dump = dump_quickly
    sys.exit(main())
