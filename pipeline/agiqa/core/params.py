"""Settings: `params.yaml` as frozen dataclasses; every knob has one name and one place.

Order of precedence: the dataclass defaults, then the file, then `--set section.key=value` on the
command line. An unknown key is an error that names the nearest valid one. `extractors` holds other
LMMs and prompt sets by name: what an entry leaves out is as in section semantic.
"""

import dataclasses
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.run_folders import PROVENANCE, data_set_name
from agiqa.core.trees import parse_yaml, read_yaml
from agiqa.core.typed_values import Matching, Range, annotations, build, convert, kind_of

PRESET = "preset"  # in section paper: the preset's own value
OfPreset = Literal["preset"]

# What values may be. The upper ends keep a slip of the finger, or a stranger's run, from taking the
# machine down.
Workers = Annotated[int, Range(1, 256)]
WorkersOrNone = Annotated[int, Range(0, 256)]
Count = Annotated[int, Range(1, 1000)]
Numbers = tuple[Annotated[int, Range(0, 1000)], ...]  # of layers
Pixels = Annotated[int, Range(1, 8192)]  # a side
Size = Annotated[int, Range(1, 1 << 16)]
SizeOrZero = Annotated[int, Range(0, 1 << 16)]
Large = Annotated[int, Range(1, 1 << 20)]
Seed = Annotated[int, Range(0, (1 << 32) - 1)]
Weight = Annotated[float, Range(0)]
Rate = Annotated[float, Range(condition=lambda rate: rate > 0, words="above 0")]
BelowOne = Annotated[
    float, Range(condition=lambda share: 0 <= share < 1, words="from 0 to below 1")
]
Share = Annotated[float, Range(condition=lambda share: 0 <= share <= 1, words="from 0 to 1")]
StoreName = Annotated[  # a file's, in the folder of its data set
    str, Matching("a plain name, as a file can have", r"[\w][\w .+@=-]{0,99}")
]
Preset = Literal["light", "tuned", "paper", "paper-fixed"]
DType = Literal["float32", "bfloat16", "float16", "int8"]
DeviceMap = Literal["", "auto", "balanced", "balanced_low_0", "sequential"]
# transformers' own kernels. It takes names of repositories as well, whose code it fetches and runs.
Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]
Format = Literal["zarr", "h5"]
Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class Prepare:
    """How an images table is built."""

    skip_bad: bool = False  # leave unreadable images out instead of stopping
    workers: Workers = 4  # threads that hash and decode
    seed: Seed = 0  # of the demo data set


@dataclass(frozen=True)
class Source:
    """Where a data set comes from; `agiqa prepare NAME` reads it, its options override it."""

    kind: str = ""  # an official data set, csv, folder or demo; by default the data set's own name
    path: str = ""  # folder or CSV; by default $AGIQA_DATA/<name>
    image_column: str = "path"  # csv: file names, relative to root
    score_columns: tuple[str, ...] = ()  # csv: one or more columns of scores
    prompt_column: str = ""  # csv: the text that the image was generated from
    group_column: str = ""  # csv: images that must stay on one side; by default the prompt
    generator_column: str = ""  # csv: the model that made the image
    deviation_columns: tuple[str, ...] = ()  # csv: the raters' deviations, one for each score
    raters_column: str = ""  # csv: number of ratings
    scale: tuple[float, ...] = ()  # csv: the two ends of the raters' scale
    lower_is_better: tuple[str, ...] = ()  # csv: scores to turn round within the scale (DMOS)
    root: str = ""  # csv: folder of the images; by default that of the CSV
    splits: Mapping[str, str] = field(default_factory=dict)  # protocol: file or folder


@dataclass(frozen=True)
class Splits:
    """How a table is divided into train, validation and test."""

    # Seeded splits for each protocol (`paper` has one by definition).
    count: Annotated[int, Range(1, 10_000)] = 10
    seed: Seed = 0  # of the first split
    ratio: tuple[float, ...] = (0.7, 0.1, 0.2)  # train, validation, test
    # What `grouped` keeps on one side beside identical files: a prompt's (or group's) images alone,
    # or pictures with near perceptual hashes as well.
    keep_together: Literal["prompt", "near"] = "prompt"


@dataclass(frozen=True)
class Semantic:
    """Stage 1, the LMM: one vector an image and prompt."""

    name: StoreName = "nano"  # the store is cache/<dataset>/<name>.zarr
    model: str = "nano"  # `nano`, a local transformers folder, or a hub id
    prompts: str = "ma_agiqa"  # a file in prompts/, or a path to a YAML file
    dtype: DType = "float32"  # the model's weights and arithmetic
    attention: Attention = "sdpa"  # transformers' attention kernel
    revision: str = ""  # of a hub id: branch, tag or commit; empty: the newest
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the weights, by bitsandbytes
    device_map: DeviceMap = ""  # auto: spread over all GPUs, for models larger than one
    # Most pixels of an image, for dynamic resolution; 0: the model's own.
    pixel_budget: Annotated[int, Range(0, 1 << 31)] = 0
    layers: Numbers = ()  # blocks whose outputs are wanted beside the last state, from 1
    compile: bool = False  # compile the language model's blocks (torch.compile)
    remote_code: str = ""  # MODEL@DIGEST, to run just that Python of the model; never from a run
    batch_size: SizeOrZero = 16  # images, always: the last batch is filled up; 0: by the device
    workers: WorkersOrNone = 2  # processes that decode and preprocess ahead of the model; 0: none
    format: Format = "zarr"  # of the store
    precision: Precision = "float16"  # of the stored vectors


@dataclass(frozen=True)
class Visual:
    """Stage 1, the visual backbone: pooled features of several layers."""

    name: StoreName = "nano-vision"  # the store is cache/<dataset>/<name>.zarr
    model: str = "nano"  # `nano` (its vision tower), a local transformers folder, or a hub id
    layers: Numbers = (3, 6, 9, 12)  # transformer blocks, counted from 1
    pool: tuple[str, ...] = ("cls", "mean", "std")  # class token; mean and deviation of the patches
    image_size: Pixels = 224  # pixels a side; position embeddings are interpolated where it differs
    # Pixels a side of which the centre, the model's own size, is seen too; 0: no.
    closeup: Annotated[int, Range(0, 8192)] = 512
    # Block whose hidden states are kept for the preset tuned, which trains those behind; 0: none.
    tokens: Annotated[int, Range(0, 1000)] = 0
    token_size: Pixels = 224  # pixels a side of the image that they are of
    token_pool: Annotated[int, Range(1, 2)] = 1  # patches a side that become one token, by mean
    dtype: DType = "float32"
    attention: Attention = "sdpa"
    batch_size: Size = 16
    workers: WorkersOrNone = 2  # processes that decode and preprocess ahead of the model; 0: none
    format: Format = "zarr"
    precision: Precision = "float16"


@dataclass(frozen=True)
class Fit:
    """Stage 2, and all of its `light` preset: a mixture of experts on cached vectors."""

    # light; tuned (section tuned); or the paper's network: paper, paper-fixed (section paper)
    preset: Preset = "light"
    target: str = "quality"  # the MOS column to predict, or several with commas between
    protocol: str = "auto"  # auto, grouped, random, paper, official, or an imported one's name
    vectors: tuple[str, ...] = ()  # semantic vectors, by names or patterns (*.last); empty: all
    # light: the probabilities of the prompts' answers as an expert of their own
    answers: bool = False
    components: Large = 768  # principal components of the visual feature, fitted on train
    semantic_components: Large = 192  # the same for each semantic vector
    # Most training images that a kernel and a projection are built on; 0: all. Fewer than 100 say
    # nothing of the rest.
    anchors: Annotated[
        int, Range(None, 1 << 31, lambda count: count == 0 or count >= 100, "0 or at least 100")
    ] = 4096
    gate: Literal["softmax", "linear"] = "softmax"  # softmax, or linear as in the paper
    epochs: Large = 300  # most passes over the training side; validation ends a training sooner
    lr: Rate = 0.03  # the larger of the two rates that are tried
    # Of the presets tuned and paper; nothing of light is drawn but the anchors, by split.
    seed: Seed = 0


@dataclass(frozen=True)
class Tuned:
    """Stage 2, the preset `tuned`: the backbone's last blocks, trained beside `light`."""

    epochs: Large = 3  # most passes over the training side
    patience: Count = 1  # epochs without a gain on validation that end a training
    batch_size: Size = 32  # images a step, over all GPUs together
    lr: Rate = 5e-4  # of the part of the head where visual and semantic vectors meet
    block_lr: Rate = 2e-5  # of the last block and of the line behind it
    layer_decay: Share = 0.7  # times the rate, for each block before
    weight_decay: Weight = 0.05
    warmup: BelowOne = 0.1  # share of the steps with a rising learning rate
    ema: BelowOne = 0.98  # decay of the averaged weights; 0: none
    precision: Literal["float32", "bfloat16", "auto"] = "auto"  # of training, as in section paper
    micro_batch: SizeOrZero = 0  # images at a time on a GPU; 0: all, halved where memory runs out


@dataclass(frozen=True)
class Network:
    """Sizes of the paper's network; those of the ViT must be its weights'."""

    image_size: Pixels = 224  # pixels a side
    patch_size: Pixels = 8
    width: Size = 768  # of the ViT and the first Swin stage; the second has half of it
    heads: Count = 12  # of the ViT's attention
    layers_run: Numbers = (6, 7, 8, 9)  # ViT blocks whose outputs are read, from 0
    window: Pixels = 4  # patches a side of a Swin window
    swin_heads: Count = 4
    swin_mlp: Size = 768  # hidden width of the MLPs in both Swin stages
    swin_scale: float = 0.8  # of each Swin layer beside its input
    dropout: BelowOne = 0.1
    drop_path: BelowOne = 0.1  # stochastic depth of a Swin stage's last block


@dataclass(frozen=True)
class Paper:
    """Stage 2, the presets `paper` and `paper-fixed`, whose own values are in presets.py."""

    backbone: str = "timm"  # the ViT starts from: timm (its download), a file, a transformers
    #                         folder or hub id, or none (random)
    epochs: Large | OfPreset = "preset"
    batch_size: Size | OfPreset = "preset"  # images a step, over all GPUs together
    lr: Rate | OfPreset = "preset"
    weight_decay: Weight | OfPreset = "preset"
    optimiser: Literal["preset", "adam", "adamw"] = "preset"
    schedule: Literal["preset", "cycle", "cosine"] = "preset"
    warmup: BelowOne | OfPreset = "preset"  # share of the steps with a rising learning rate
    flip: Literal["preset", "vertical", "horizontal", "none"] = "preset"
    rotate: bool | OfPreset = "preset"  # by quarter turns
    augment: Share | OfPreset = "preset"  # probability of the flip, and of the rotation
    drop_last_train: bool | OfPreset = "preset"  # leave out images that do not fill a batch
    drop_last_val: bool | OfPreset = "preset"
    drop_last_test: bool | OfPreset = "preset"  # beside the full figures, those without them
    ema: BelowOne | OfPreset = "preset"  # decay of the averaged weights; 0: none
    # Of training: float32 (no TF32), bfloat16, or auto: bfloat16 on GPUs that have it; scoring is
    # float32.
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    micro_batch: SizeOrZero = 0  # images at a time on a GPU; 0: all, halved where memory runs out
    gradient_checkpointing: bool = False  # half the memory for a third more time
    workers: Workers = 4  # threads that decode the images, once
    network: Network = field(default_factory=Network)


@dataclass(frozen=True)
class Params:
    """All settings of `params.yaml`, by section."""

    datasets: tuple[str, ...] = ("demo",)
    protocols: tuple[str, ...] = ("grouped", "random")
    sources: Mapping[str, Source] = field(default_factory=dict)
    prepare: Prepare = field(default_factory=Prepare)
    splits: Splits = field(default_factory=Splits)
    semantic: Semantic = field(default_factory=Semantic)
    extractors: Mapping[str, Semantic] = field(default_factory=dict)  # by store name; each whole
    visual: Visual = field(default_factory=Visual)
    fit: Fit = field(default_factory=Fit)
    tuned: Tuned = field(default_factory=Tuned)
    paper: Paper = field(default_factory=Paper)


EXTRACTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a dot would part a key, DVC's too
# Folders in runs/DATASET that are runs themselves: no extractor has such a name.
PROTOCOLS = ("auto", "grouped", "random", "paper", "official", "cross")


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Params:
    """Read `path` (or ./params.yaml where it exists) and apply `key.path=value` overrides.

    Raises:
        AgiqaError: file absent or no YAML mapping, a key or an override given twice, unknown key,
            wrong type, value out of choice.
    """
    if path is None and Path("params.yaml").is_file():
        path = Path("params.yaml")
    tree = _read_tree(path) if path is not None else {}
    given: dict[str, str] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise AgiqaError(f"--set expects key=value (such as fit.lr=0.001), found '{override}'.")
        if undone := [other for other in given if f"{other}.".startswith(f"{key}.")]:
            raise AgiqaError(
                f"--set {override}: it would undo --set {undone[0]}={given[undone[0]]}: give one."
            )
        given[key] = text
        _override(tree, key, text)
    where = str(path) if path else "params"
    params = from_tree(tree, where)
    _require_names(params, where)
    return params


def _read_tree(path: Path) -> dict[str, Any]:
    """Read a file of settings; one that lies in a run loses its permissions."""
    try:
        loaded = read_yaml(path)
    except OSError as error:
        raise AgiqaError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise AgiqaError(f"{path}: not valid YAML: {one_line(error)}.") from error
    if not isinstance(loaded, dict | None):
        raise AgiqaError(f"{path}: expected sections with settings, found a {kind_of(loaded)}.")
    tree: dict[str, Any] = loaded or {}
    return dict(without_permission(tree)) if (path.parent / PROVENANCE).exists() else tree


def _override(tree: dict[str, Any], key: str, text: str) -> None:
    """Put the value of `--set KEY=TEXT` into the tree."""
    section = tree
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise AgiqaError(f"--set {key}={text}: '{parent}' is a value, not a section.")
        section = inner
    try:
        section[leaf] = parse_yaml(text)
    except ValueError as error:
        message = f"--set {key}={text}: not a valid value: {one_line(error)}."
        raise AgiqaError(message) from error


def settings(params: Params | None) -> Params:
    """Take the settings given, checked as a file's are, or those of ./params.yaml.

    Raises:
        AgiqaError: as `load`.
    """
    if params is None:
        return load()
    checked = from_tree(dataclasses.asdict(params), "params")
    _require_names(checked, "params")
    return checked


def from_tree(tree: Mapping[str, Any], where: str) -> Params:
    """Settings out of nested mappings; `where` begins the message of an error."""
    if not isinstance(tree, Mapping):
        raise AgiqaError(f"{where}: expected sections with settings, found a {kind_of(tree)}.")
    params = build(Params, tree, "", where)
    ratio = params.splits.ratio
    if len(ratio) != 3 or min(ratio) <= 0 or abs(sum(ratio) - 1) > 1e-6:
        raise AgiqaError(
            f"{where}: 'splits.ratio' expects three shares above 0 that sum to 1 (train, "
            f"validation, test), found {list(ratio)}."
        )
    if not params.paper.network.layers_run:
        raise AgiqaError(f"{where}: 'paper.network.layers_run' expects at least one block.")
    return replace(params, extractors=_extractors(tree, params, where))


def of_a_run(params: Params, remote_code: str = "") -> Params:
    """What of a run's settings counts on this machine: all but its permissions and its resources.

    Code of a model runs only where the person here allows it (`remote_code`), and how many workers
    and images at a time there are is this machine's.
    """
    own = Params()
    semantic = replace(
        params.semantic, remote_code=remote_code, workers=own.semantic.workers, batch_size=0
    )
    visual = replace(params.visual, workers=own.visual.workers, batch_size=own.visual.batch_size)
    paper = replace(params.paper, workers=own.paper.workers)
    return replace(params, semantic=semantic, visual=visual, paper=paper)


def require_choices(section: str, settings: Semantic | Visual, where: str) -> None:
    """Refuse values out of choice in settings that no file of settings was read for.

    Raises:
        AgiqaError: names the setting and what it may be.
    """
    for name, hint in annotations(type(settings)).items():
        convert(getattr(settings, name), hint, f"{section}.{name}", where)


def without_permission(tree: Any) -> Any:
    """Settings as they lie in a run, without what they would allow, in whichever section."""
    if not isinstance(tree, Mapping):
        return tree
    return {
        key: "" if key == "remote_code" else without_permission(value)
        for key, value in tree.items()
    }


def _require_names(params: Params, where: str) -> None:
    """Refuse names that are no folder's or stage's, and any that stands twice in a list."""
    for key, names in (("datasets", params.datasets), ("sources", params.sources)):
        for name in names:
            data_set_name(name, f"{where}: '{key}'")
    lists = {
        "datasets": params.datasets,
        "protocols": params.protocols,
        "semantic.layers": params.semantic.layers,
        "visual.layers": params.visual.layers,
        "visual.pool": params.visual.pool,
        "fit.vectors": params.fit.vectors,
    }
    for key, items in lists.items():
        if twice := [item for item, times in Counter(map(str, items)).items() if times > 1]:
            raise AgiqaError(f"{where}: '{key}' names {twice[0]!r} twice: name each once.")
    extractors = tuple(params.extractors)
    for matrix in (
        (params.datasets, params.protocols),
        (params.datasets, extractors),
        (params.datasets, extractors, params.protocols),
    ):  # as DVC names the stages of dvc.yaml, of two of one name the last
        stages = Counter("-".join(parts) for parts in itertools.product(*matrix))
        if twice := [stage for stage, times in stages.items() if times > 1]:
            raise AgiqaError(
                f"{where}: datasets, extractors and protocols make two stages of the name "
                f"'{twice[0]}': rename one of them."
            )
    if params.semantic.name == params.visual.name:
        raise AgiqaError(
            f"{where}: 'semantic.name' and 'visual.name' are both '{params.visual.name}': stores "
            "go by them; rename one."
        )


def with_extractor(params: Params, name: str) -> Params:
    """The settings with `extractors.NAME` as section semantic; with "" that section as it is.

    Either way without the other extractors, which are not this command's.

    Raises:
        AgiqaError: there is none of that name.
    """
    if not name:
        return replace(params, extractors={})
    if name not in params.extractors:
        names = ", ".join(params.extractors) or "none"
        near = difflib.get_close_matches(name, params.extractors, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "add it there."
        raise AgiqaError(
            f"No extractor '{name}' among 'extractors' in the settings; there are: {names}; {hint}"
        )
    return replace(params, semantic=params.extractors[name], extractors={})


def _extractors(tree: Mapping[str, Any], params: Params, where: str) -> dict[str, Semantic]:
    """Section semantic with what each entry changes, under the entry's name."""
    extractors = {}
    for name, entry in (tree.get("extractors") or {}).items():
        key = f"extractors.{name}"
        if not isinstance(name, str) or not EXTRACTOR_NAME.fullmatch(name):
            raise AgiqaError(
                f"{where}: '{key}' expects a name of letters, digits, dashes and underscores, "
                f"found {name!r}."
            )
        taken = (*PROTOCOLS, *params.protocols, params.semantic.name, params.visual.name)
        if name in taken:
            raise AgiqaError(
                f"{where}: '{key}' has a name that is taken ({', '.join(dict.fromkeys(taken))}): "
                "stores and runs go by it."
            )
        given = {key: getattr(params.extractors[name], key) for key in entry or {}}
        for own, fixed in (("name", name), ("format", params.semantic.format)):
            if given.get(own, fixed) != fixed:
                raise AgiqaError(
                    f"{where}: '{key}.{own}' is '{fixed}', found '{given[own]}': leave it out."
                )
        extractors[name] = replace(params.semantic, **(given | {"name": name}))
    return extractors


def dump(params: Params, permissions: bool = True) -> str:
    """`params` as YAML text with every value; for a run without permissions."""
    tree = _plain(dataclasses.asdict(params))
    kept = tree if permissions else without_permission(tree)
    return yaml.safe_dump(kept, sort_keys=False)  # all escaped: YAML folds U+0085 to a space


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
