"""What of the environment changes a model's numbers: libraries, and packages that work unasked.

transformers takes up some packages wherever they are installed: kernels for state-space and linear
attention (causal-conv1d, fla, mamba-ssm), quantisers, tokenizers of other makers. A vector made
with them is another one, so their versions stand in its fingerprint, under `libraries`, where the
model can take them up; a model that cannot has the same fingerprint with and without them. What
`peft` would do is refused (`refuse_adapter`).
"""

import ast
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import read_json

LIBRARIES = ("torch", "transformers", "pillow")  # whose versions may change any vector
# Distributions by the name by which transformers' modelling code imports them where they are there.
TAKEN_UP = {
    "causal_conv1d": "causal-conv1d",
    "detectron2": "detectron2",
    "fla": "flash-linear-attention",
    "flash_attn": "flash-attn",
    "kernels": "kernels",
    "mamba_ssm": "mamba-ssm",
    "mambapy": "mambapy",
    "natten": "natten",
    "timm": "timm",
    "torchvision": "torchvision",
    "xlstm": "xlstm",
}
FLASH = ("flash-attn", "flash-attn-3", "flash-attn-4", "kernels")  # whichever of them serves
QUANTISERS = (
    *("aqlm", "auto-round", "autoawq", "bitsandbytes", "compressed-tensors", "eetq"),
    *("fbgemm-gpu", "flute-kernel", "fp-quant", "fouroversix", "gguf", "gptqmodel", "hqq"),
    *("kernels", "optimum", "optimum-quanto", "qutlass", "quark", "sinq", "spqr-quant"),
    *("torchao", "triton", "vptq"),
)
TOKENIZERS = ("mistral-common", "sentencepiece", "tiktoken")
ADAPTER = "adapter_config.json"  # peft's; transformers applies what lies beside it, with peft


def libraries(
    config: Any,
    attention: str = "",
    *,
    quantised: bool = False,
    tokenizer: Any = None,
    code: Path | None = None,
) -> dict[str, str]:
    """Look up versions of whatever can change the vectors of a model.

    Args:
        config: the model's, as transformers reads it; None: of a network of our own.
        attention: the attention kernel asked for.
        quantised: whether the settings ask for weights in fewer bits.
        tokenizer: the model's, where texts are made of tokens.
        code: the model's folder, where Python of its own is run.

    Raises:
        AgiqaError: the attention kernel would be code from the hub.
    """
    if "/" in attention:
        raise AgiqaError(
            f"attention is a kernel of transformers, such as sdpa or eager; found {attention!r}, "
            "code from the hub, which is not run."
        )
    wanted = set()
    for part in _configs(config):
        wanted |= _taken_up(part)
    if attention.startswith("flash"):
        wanted |= set(FLASH)
    if quantised or getattr(config, "quantization_config", None):
        wanted |= set(QUANTISERS)
    # The ordinary ones are of the library `tokenizers`, which transformers requires.
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        wanted |= set(TOKENIZERS)
    if code is not None:
        wanted |= _imported(code)
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    for name in wanted:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def refuse_adapter(folder: Path) -> None:
    """Refuse a model's folder with an adapter, which only an installed peft would apply.

    Raises:
        AgiqaError: says how to make a full model of it.
    """
    path = folder / ADAPTER
    if not path.is_file():
        return
    try:
        base = str(read_json(path)["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        base = "its base model"
    merge = (
        f"PeftModel.from_pretrained(<{base[:80]!r} as a model>, {str(folder)!r})"
        ".merge_and_unload().save_pretrained(<a new folder>)"
    )
    if (folder / "config.json").is_file():
        raise AgiqaError(
            f"{folder}: an adapter ({ADAPTER}) lies beside the full model, and would be applied "
            f"where peft is installed and nowhere else: merge it by peft, {merge}, and name the "
            "new folder; or take the adapter's files out."
        )
    raise AgiqaError(
        f"{folder}: expected a full model, found an adapter alone ({ADAPTER}): merge it into "
        f"{base[:80]!r} by peft, {merge}, put that model's processor files beside, and name the "
        "new folder."
    )


def _configs(config: Any) -> Iterator[Any]:
    """Yield the configuration and those of its parts."""
    from transformers import PreTrainedConfig

    if isinstance(config, PreTrainedConfig):
        yield config
        for value in vars(config).values():
            yield from _configs(value)


def _taken_up(config: Any) -> set[str]:
    """Find distributions that transformers' code of this kind of model takes up if installed."""
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        module = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return set()
    if not name.startswith("transformers.") or module is None or module.origin is None:
        return set()
    text = Path(module.origin).read_text(encoding="utf-8")
    return {
        distribution
        for package, distribution in TAKEN_UP.items()
        if re.search(
            rf'"{package}"|\bis_{package}(_\d)?_available\b|^\s*(import|from) {package}\b',
            text,
            re.MULTILINE,
        )
    }


def _imported(code: Path) -> set[str]:
    """Find distributions of what the Python files of a model's folder import."""
    by_package = importlib.metadata.packages_distributions()
    wanted: set[str] = set()
    for path in sorted(code.rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # it cannot be run either
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                if package not in sys.stdlib_module_names:
                    wanted |= set(by_package.get(package, ()))
    return wanted
