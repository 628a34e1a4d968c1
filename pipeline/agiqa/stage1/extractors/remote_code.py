"""Code that comes with a model: none of it runs unless the person at the keyboard allows just that.

Permission is `MODEL@DIGEST`, the model as the settings name it and a digest of its Python files, so
that it lapses with any change of them. It comes from the person's own settings
(`semantic.remote_code`), from `--remote-code` or from the environment; what a run says is blanked
when it is read (`runs/files.py`).

transformers would run or fetch code by other routes as well, and `require_own_parts` closes them:
code and weights that a folder names elsewhere, kernels from the hub as attention, timm's
checkpoints, which are pickles. Where it is left open whether code may run, transformers asks on
standard input; `no_questions` makes that a refusal.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.params import Semantic
from agiqa.core.regular_files import file_sha256
from agiqa.core.trees import read_json

log = logging.getLogger(__name__)

ENVIRONMENT = "AGIQA_REMOTE_CODE"  # permission for every command of a shell
OWN_CODE = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")  # a file of the folder's top, and a class
DIGITS = 32  # of the digest's 64: neither found by chance nor, in pairs, by search
# Keyword arguments of timm.create_model that read files or the hub; checkpoints are pickles.
TIMM_READS = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


def trust(path: Path, settings: Semantic) -> dict[str, bool]:
    """Make the argument that lets a model run its own code; empty where it needs none.

    Args:
        path: the model's folder.
        settings: which model it is, and what is allowed.

    Raises:
        AgiqaError: it needs code of its own that is not allowed, or that lies elsewhere.
    """
    from transformers import CONFIG_MAPPING

    no_questions()
    config = read_config(path)
    if "auto_map" not in config or config.get("model_type") in CONFIG_MAPPING:
        return {}
    model = settings.model
    named = {
        file.name: maps
        for file in sorted(path.glob("*config.json"))
        if (maps := list(_auto_maps(json_mapping(file))))
    }
    elsewhere = [name for name in _strings(named) if not OWN_CODE.fullmatch(name)]
    if elsewhere:
        raise AgiqaError(
            f"Model '{model}' wants to run Python of another place ({some(elsewhere, 2)}), "
            "which is refused: put the files into its own folder, or use another model."
        )
    files = _code(path, settings)
    if not files:
        raise AgiqaError(
            f"Model '{model}' is of a type that transformers does not know "
            f"({config.get('model_type')}), and its own Python is not in {path}: copy it there."
        )
    listing = {name: file_sha256(path / name) for name in files}
    text = json.dumps([listing, named], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    permission = f"{model}@{digest}"
    if permission not in (settings.remote_code, os.environ.get(ENVIRONMENT)):
        raise AgiqaError(
            f"Model '{model}' wants to run Python of its own, which is refused: read "
            f"{some(files, 3)} in {path}; to allow exactly this code, give {permission} as "
            f"--remote-code where a run is used, as semantic.remote_code in your own settings, or "
            f"as {ENVIRONMENT}; or use another model."
        )
    return {"trust_remote_code": True}


def _auto_maps(node: object) -> Iterator[object]:
    """Yield every `auto_map` of a tree."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from [value] if key == "auto_map" else _auto_maps(value)
    elif isinstance(node, list):
        for child in node:
            yield from _auto_maps(child)


def no_questions() -> None:
    """Make transformers refuse code that nobody spoke of, instead of asking on standard input."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def read_config(path: Path) -> dict[str, Any]:
    """Read the model's configuration as its folder has it.

    Raises:
        AgiqaError: it cannot be read.
    """
    file = path / "config.json"
    try:
        return dict(read_json(file))
    except (OSError, ValueError, TypeError) as error:
        raise AgiqaError(
            f"{file}: not a model's configuration ({one_line(error)}); copy it again."
        ) from error


def require_own_parts(path: Path, name: str) -> None:
    """Refuse a model folder that sends its loader elsewhere.

    Args:
        path: the folder.
        name: of the model, for errors.

    Raises:
        AgiqaError: it names code, weights or kernels that are not its own, or is damaged.
    """
    wrong = [
        f"config.json: {key} is {value!r}"
        for key, value in _leads_away(read_config(path), "config", "")
    ]
    for file in sorted(path.glob("*processor*config.json")):
        if file.name == "audio_tokenizer_config.json" or "audio_tokenizer" in json_mapping(file):
            wrong.append(f"{file.name} loads an audio tokenizer from elsewhere")
    for file in sorted(path.glob("*.index.json")):
        shards = json_mapping(file).get("weight_map")
        for shard in sorted(set(_strings(shards))):
            if len(PurePosixPath(shard).parts) != 1 or "\\" in shard or shard == "..":
                wrong.append(f"{file.name} names the weights {shard!r}")
    if (path / "audio_tokenizer_config.json").exists():
        wrong.append("audio_tokenizer_config.json loads a model from elsewhere")
    if wrong:
        raise AgiqaError(
            f"Model '{name}' would load what is not in its own folder, which is refused "
            f"({some(wrong, 2)}): remove that, or use another model."
        )


def _leads_away(node: object, path: str, kind: str) -> Iterator[tuple[str, object]]:
    """Yield a configuration's keys that name code, kernels or files elsewhere, and their values."""
    if isinstance(node, list):
        for child in node:
            yield from _leads_away(child, path, kind)
    if not isinstance(node, Mapping):
        return
    kind = str(node.get("model_type", kind))
    for key, value in node.items():
        inner = f"{path}.{key}"
        if key == "auto_map" and path != "config":
            yield inner, value
        elif key.endswith("implementation"):
            yield from ((inner, text) for text in _strings(value) if "/" in text)
        elif kind.startswith("timm") and key in ("architecture", "backbone"):
            yield from ((inner, text) for text in _strings(value) if ":" in text or "/" in text)
        elif kind.startswith("timm") and key == "model_args" and isinstance(value, Mapping):
            yield from ((f"{inner}.{name}", value[name]) for name in TIMM_READS if name in value)
        elif key in ("audio_tokenizer", "audio_tokenizer_name_or_path"):
            yield inner, value
        else:
            yield from _leads_away(value, inner, kind)


def _strings(node: object) -> Iterator[str]:
    """Yield every text in a tree."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for child in node.values():
            yield from _strings(child)
    elif isinstance(node, list):
        for child in node:
            yield from _strings(child)


def json_mapping(file: Path) -> Mapping[str, Any]:
    """Read a JSON file's keys; none where it holds something else.

    Raises:
        AgiqaError: it is damaged.
    """
    try:
        tree = read_json(file)
    except (OSError, ValueError) as error:
        raise AgiqaError(f"{file}: not readable as JSON ({one_line(error)}); copy it again.") from (
            error
        )
    return tree if isinstance(tree, Mapping) else {}


def _code(path: Path, settings: Semantic) -> list[str]:
    """List the folder's Python files; a hub's are fetched, not run."""
    if not Path(settings.model).is_dir():
        from huggingface_hub import snapshot_download

        try:  # the snapshot's name is its commit
            snapshot_download(settings.model, revision=path.name, allow_patterns=["*.py"])
        except Exception as error:  # network stacks raise many kinds; all mean the same here
            log.debug("%s: its Python cannot be fetched (%s)", settings.model, error)
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*.py"))
