import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.core.params import (
    Fit,
    Network,
    Paper,
    Params,
    Prepare,
    Semantic,
    Source,
    Splits,
    Visual,
    dump,
    load,
    with_extractor,
)

SHIPPED = Path(__file__).resolve().parents[2] / "params.yaml"


names = st.text("abcdefghijZ019_-", min_size=1, max_size=9).filter(lambda name: name[0] not in "_-")
words = st.text(st.characters(exclude_categories=["C", "Z"]))  # YAML folds exotic line ends


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_override_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, "fit:\n  lr: 0.5\n  epochs: 3\ndatasets: [a, b]\n")
    params = load(path, ["fit.lr=0.25", "datasets=[c]", "semantic.name=other"])
    assert params.fit == Fit(lr=0.25, epochs=3)
    assert params.datasets == ("c",)
    assert params.semantic.name == "other"
    assert params.visual == Params().visual


def test_the_file_of_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load() == Params()
    write(tmp_path, "fit: {seed: 7}")
    assert load().fit.seed == 7
    write(tmp_path, "# all defaults\n")
    assert load() == Params()


def test_the_shipped_file_states_every_default_with_a_comment() -> None:
    assert replace(load(SHIPPED), sources={}) == Params()
    text = SHIPPED.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    for section in fields(Params):
        value = getattr(Params(), section.name)
        names = [knob.name for knob in fields(value)] if is_dataclass(value) else []
        assert not names or list(tree[section.name]) == names
    commented = set(re.findall(r"^ *(\w+): .*#", text, flags=re.MULTILINE))
    sections = (Prepare, Splits, Semantic, Visual, Fit, Paper, Network)
    knobs = {knob.name for cls in sections for knob in fields(cls)}
    assert knobs <= commented  # where it stands first, if a section repeats it


@given(
    st.builds(
        Params,
        datasets=st.lists(names, max_size=3, unique=True).map(tuple),
        splits=st.builds(Splits, count=st.integers(1, 99), seed=st.integers(0, 2**32 - 1)),
        sources=st.dictionaries(
            names,
            st.builds(Source, path=words, score_columns=st.lists(words).map(tuple)),
            max_size=2,
        ),
        fit=st.builds(
            Fit,
            lr=st.floats(0, exclude_min=True, allow_infinity=False),
            gate=st.sampled_from(["softmax", "linear"]),
            target=words,
        ),
        paper=st.builds(
            Paper,
            lr=st.one_of(st.just("preset"), st.floats(0, exclude_min=True, allow_infinity=False)),
            epochs=st.one_of(st.just("preset"), st.integers(1, 99)),
            rotate=st.one_of(st.just("preset"), st.booleans()),
            network=st.builds(Network, width=st.integers(1, 1 << 16)),
        ),
    )
)
def test_dumped_settings_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, params: Params
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(dump(params), encoding="utf-8")
    assert load(path) == params


def test_numbers_as_yaml_and_people_write_them() -> None:
    assert load(None, ["fit.lr=1e-3"]).fit.lr == 1e-3  # text to YAML 1.1
    assert load(None, ["paper.network.dropout=0"]).paper.network.dropout == 0.0
    assert isinstance(load(None, ["paper.network.dropout=0"]).paper.network.dropout, float)
    assert load(None, ["visual.layers=[1, 2]"]).visual.layers == (1, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fit.lr=1", "fit.lr=2"], "--set fit.lr=2: it would undo --set fit.lr=1: give one"),
        (["fit.lr=1", "fit={epochs: 2}"], "it would undo --set fit.lr=1"),
        (["fit={lr: 1, lr: 2}"], "not a valid value: line 1: the key 'lr' stands twice"),
    ],
)
def test_what_is_given_twice_is_refused(overrides: list[str], message: str) -> None:
    assert load(None, ["fit={lr: 1}", "fit.epochs=2"]).fit == Fit(lr=1, epochs=2)
    with pytest.raises(AgiqaError, match=re.escape(message)):
        load(None, overrides)


def test_stages_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load(None, ["datasets=[a, a-b]", "protocols=[grouped, random]"])
    with pytest.raises(AgiqaError, match="make two stages of the name 'a-b-c'"):
        load(None, ["datasets=[a, a-b]", "protocols=[b-c, c]"])


def test_a_section_twice_in_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "fit:\n  lr: 1\nsplits:\n  seed: 1\nfit:\n  epochs: 2\n")
    with pytest.raises(AgiqaError, match="line 5: the key 'fit' stands twice, first in line 1"):
        load(path)


def test_data_sets_of_ones_own() -> None:
    params = load(None, ["sources.mine.kind=csv", "sources.mine.score_columns=[mos]", "sources.x="])
    assert params.sources["mine"] == Source(kind="csv", score_columns=("mos",))
    assert params.sources["x"] == Source()
    with pytest.raises(
        AgiqaError, match=r"'sources\.mine\.kin'; did you mean 'sources\.mine\.kind'"
    ):
        load(None, ["sources.mine.kin=csv"])


def test_an_extractor_is_section_semantic_with_what_differs(tmp_path: Path) -> None:
    path = write(tmp_path, "semantic: {model: big, batch_size: 2}\nextractors:\n  owl:\n    "
                 "{prompts: aspects, workers: 0}\n  plain:\n")  # fmt: skip
    params = load(path, ["extractors.owl.dtype=bfloat16", "semantic.layers=[3]"])
    common = Semantic(model="big", batch_size=2, layers=(3,))
    assert params.extractors == {
        "owl": replace(common, name="owl", prompts="aspects", workers=0, dtype="bfloat16"),
        "plain": replace(common, name="plain"),
    }
    chosen = with_extractor(params, "owl")
    assert chosen == replace(params, semantic=params.extractors["owl"], extractors={})
    assert with_extractor(params, "") == replace(params, extractors={})
    again = tmp_path / "again.yaml"
    again.write_text(dump(params))
    assert load(again) == params
    with pytest.raises(
        AgiqaError, match=r"No extractor 'oil' .* there are: owl, plain; did .*'owl"
    ):
        with_extractor(params, "oil")
    with pytest.raises(AgiqaError, match=r"No extractor 'x' .* there are: none; add it there"):
        with_extractor(Params(), "x")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.leanring_rate=1", "unknown setting 'fit.leanring_rate'; valid: "),
        ("fit.epoch=1", "unknown setting 'fit.epoch'; did you mean 'fit.epochs'?"),
        ("semantics.name=a", "'semantics'; did you mean 'semantic'?"),
        ("fit.epochs=many", "'fit.epochs' expects a whole number, found 'many'"),
        ("fit.epochs=1.5", "'fit.epochs' expects a whole number, found 1.5"),
        ("fit.epochs=true", "'fit.epochs' expects a whole number, found True"),
        ("fit.epochs=0", "'fit.epochs' must be at least 1, found 0"),
        ("visual.batch_size=-4", "'visual.batch_size' must be at least 1, found -4"),
        ("fit.lr=fast", "'fit.lr' expects a number, found 'fast'"),
        ("fit.lr=", "'fit.lr' expects a number, found None"),
        ("prepare.skip_bad=1", "'prepare.skip_bad' expects true or false, found 1"),
        ("semantic.name=3", "'semantic.name' expects text, found 3"),
        ("datasets=demo", "'datasets' expects a list, found 'demo'"),
        ("visual.layers=[one]", "'visual.layers' expects a whole number, found 'one'"),
        ("fit.gate=hard", "'fit.gate' is one of softmax, linear; found 'hard'"),
        ("paper.epochs=few", "'paper.epochs' expects a whole number or preset, found 'few'"),
        ("paper.epochs=0", "'paper.epochs' must be at least 1, found 0"),
        ("paper.micro_batch=-1", "'paper.micro_batch' must be at least 0, found -1"),
        ("paper.flip=up", "'paper.flip' is one of preset, vertical, horizontal, none; found"),
        ("paper.network.patch=8", "did you mean 'paper.network.patch_size'"),
        ("fit=3", "'fit' is a section, found a number"),
        ("fit.lr", "expects key=value (such as fit.lr=0.001), found 'fit.lr'"),
        ("datasets=[a", "--set datasets=[a: not a valid value"),
        ("fit.lr=-1", "'fit.lr' must be above 0, found -1"),
        ("paper.lr=0", "'paper.lr' must be above 0"),
        ("paper.network.dropout=2", "'paper.network.dropout' must be from 0 to below 1, found 2"),
        ("fit.components=0", "'fit.components' must be at least 1, found 0"),
        ("fit.components=-5", "'fit.components' must be at least 1"),
        ("fit.anchors=7", "'fit.anchors' must be 0 or at least 100, found 7"),
        ("fit.anchors=-1", "'fit.anchors' must be 0 or at least 100, found -1"),
        ("prepare.workers=0", "'prepare.workers' must be at least 1"),
        ("splits.ratio=[0.5, 0.5]", "expects three shares above 0 that sum to 1"),
        ("splits.ratio=[0.7, 0.5, 0.3]", "expects three shares above 0 that sum to 1"),
        ("paper.network.layers_run=[]", "expects at least one block"),
        ("extractors=[owl]", "'extractors' is a section, found a list"),
        ("extractors.owl=3", "'extractors.owl' is a section, found a number"),
        ("extractors.owl.modle=x", "'extractors.owl.modle'; did you mean 'extractors.owl.model'?"),
        ("extractors.owl.dtype=int4", "'extractors.owl.dtype' is one of float32, bfloat16"),
        ("extractors.owl.batch_size=-1", "'extractors.owl.batch_size' must be at least 0"),
        ("extractors.owl.name=eule", "'extractors.owl.name' is 'owl', found 'eule': leave it out"),
        ("extractors.owl.format=h5", "'extractors.owl.format' is 'zarr', found 'h5': leave it out"),
        ("extractors={owl 2: {}}", "letters, digits, dashes and underscores, found 'owl 2'"),
        ("extractors={owl.2: {}}", "letters, digits, dashes and underscores, found 'owl.2'"),
        ("extractors={../x: {}}", "letters, digits, dashes and underscores, found '../x'"),
        ("extractors={7: {}}", "letters, digits, dashes and underscores, found 7"),
        ("extractors.nano={}", "'extractors.nano' has a name that is taken"),
        ("extractors.nano-vision={}", "'extractors.nano-vision' has a name that is taken"),
        ("extractors.grouped={}", "'extractors.grouped' has a name that is taken"),
        ("datasets=[a, b, a]", "'datasets' names 'a' twice"),
        ("datasets=[a.b]", "'datasets': expected a plain name, found 'a.b'"),
        ("sources={a b: {}}", "'sources': expected a plain name, found 'a b'"),
        ("protocols=[grouped, grouped]", "'protocols' names 'grouped' twice"),
        ("visual.layers=[3, 3]", "'visual.layers' names '3' twice"),
        ("visual.pool=[cls, cls]", "'visual.pool' names 'cls' twice"),
        ("semantic.layers=[1, 1]", "'semantic.layers' names '1' twice"),
        ("fit.vectors=[a, a]", "'fit.vectors' names 'a' twice"),
        ("semantic.name=nano-vision", "'semantic.name' and 'visual.name' are both 'nano-vision'"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(AgiqaError, match=re.escape(message)) as caught:
        load(SHIPPED, [override])
    assert "\n" not in str(caught.value)


def test_none_is_a_number_of_workers() -> None:
    assert load(SHIPPED, ["semantic.workers=0", "semantic.batch_size=0"]).semantic.workers == 0


def test_a_value_is_not_a_section(tmp_path: Path) -> None:
    path = write(tmp_path, "fit: 3\n")
    with pytest.raises(AgiqaError, match="'fit' is a value, not a section"):
        load(path, ["fit.lr=1"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- a\n- b\n", "expected sections with settings, found a list"),
        (b"fit: [", "not valid YAML"),
        (b"fit: {target: \xff}", "not valid YAML"),
        (b"fit:\n  lr: high\n", r"'fit\.lr' expects a number"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    with pytest.raises(AgiqaError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match=r"none\.yaml: cannot be read \(No such file"):
        load(tmp_path / "none.yaml")
