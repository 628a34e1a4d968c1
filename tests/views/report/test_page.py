import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.metric_names import TOO_FEW_TO_FIT
from agiqa.views.report import write_report

VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}


class Strict(HTMLParser):
    """Notes what a browser would forgive: tags left open or crossed, ids given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.resources: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.open[-1:] != ["style"]:
            self.text += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert len(named) == len(attrs), f"attribute twice in <{tag}>"
        self.tags[tag] += 1
        if tag == "script":
            self.scripts.append((named, ""))
        self.attributes.append((tag, named))
        if identity := named.get("id"):
            self.ids[identity] += 1
        self.resources += [named[k] or "" for k in ("src", "href") if k in named]


def parsed(page: Path) -> Strict:
    parser = Strict()
    parser.feed(page.read_text("utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def prose(page: Strict) -> str:
    return re.sub(r"\s+", " ", page.text)


def report(root: Path) -> Path:
    return write_report([root / "run"], root / "cache" / "tiny", root / "out" / "report.html")


@pytest.fixture(scope="module")
def written(finished_run: Path) -> Path:
    """The page about a run; not to be changed."""
    return report(finished_run)


@pytest.fixture(scope="module")
def page(written: Path) -> Strict:
    return parsed(written)


@contextmanager
def changing(run: Path, file: str = "metrics.json") -> Iterator[Any]:
    """A JSON file of a run, written back as it is changed."""
    tree = json.loads((run / file).read_text("utf-8"))
    yield tree
    (run / file).write_text(json.dumps(tree), "utf-8")


def inert(page: Strict, name: str = "data") -> Any:
    """What stands in one of the page's JSON blocks."""
    (found,) = [content for named, content in page.scripts if named.get("id") == name]
    return json.loads(found)


def test_the_page_is_one_sound_file_that_loads_nothing(written: Path, page: Strict) -> None:
    assert page.tags["html"] == page.tags["main"] == page.tags["h1"] == 1
    assert page.tags["table"] == 2
    assert page.tags["link"] == page.tags["iframe"] == page.tags["img"] == 0
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert {resource[1:] for resource in page.resources} <= set(page.ids)
    assert all(each.startswith("#") for each in page.resources)
    style = re.search(r"<style>.*?</style>", written.read_text("utf-8"), flags=re.DOTALL)
    assert style
    assert not re.search(r"@import|url\(", style.group())
    assert written.stat().st_size < 6_500_000


def test_the_policy_names_every_script_and_nothing_else(page: Strict) -> None:
    (policy,) = [named["content"] for _, named in page.attributes
                 if named.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    run = [content for named, content in page.scripts if "type" not in named]
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in run]
    assert len(run) == 3  # Plotly, ours, and what starts the gallery
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{digest}'" for digest in digests)
        + "; base-uri 'none'; form-action 'none'"
    )
    others = [named["type"] for named, _ in page.scripts if "type" in named]
    assert set(others) == {"application/json"}


def test_every_plot_has_words(page: Strict) -> None:
    drawn = [n for tag, n in page.attributes if tag == "div" and n.get("class") == "plot"]
    figures = inert(page)["figures"][0]
    assert len(drawn) == len(figures) == 12
    assert all(each["aria-label"] for each in drawn)


def test_text_from_data_is_escaped(written: Path, page: Strict) -> None:
    # a raw <b> or <i> of a generator or setting would be left open
    assert "<script>alert" not in written.read_text("utf-8")
    assert "CC0 <1>" in page.text
    assert "good <b>" in page.text
    assert "lr: 0.002 # <i>" in page.text
    assert 'a "cat" & <script>alert(1)</script>' in inert(page)["columns"]["prompts"]


def test_the_figures_colours_are_those_of_the_style(written: Path, page: Strict) -> None:
    text = written.read_text("utf-8")
    colours = set(re.findall(r'"(--[\w-]+)"', json.dumps(inert(page)["figures"])))
    assert len(colours) > 6
    for colour in colours:
        assert f"{colour}:" in text


def test_every_image_is_once_in_the_page(page: Strict) -> None:
    columns = inert(page)["columns"]
    pictures = inert(page, "picture-0")
    assert len(columns["path"]) == len(set(columns["path"])) == len(pictures)
    assert all(base64.b64decode(picture)[8:12] == b"WEBP" for picture in pictures)
    assert columns["path"] == sorted(columns["path"])
    assert len(columns["runs"][0]["gate"]) == 3


def test_same_run_same_bytes(root: Path) -> None:
    assert report(root).read_bytes() == report(root).read_bytes()


def test_synthetic_data_are_called_so_and_have_no_mos(tiny_run: Callable[..., Path]) -> None:
    page = parsed(report(tiny_run(synthetic=True)))
    said = prose(page)
    assert "Synthetic data set: severity of degradation, not human opinion." in said
    assert "MOS" not in said + "".join(str(named) for _, named in page.attributes)
    assert "true score" in said


def test_real_data_have_no_banner(page: Strict) -> None:
    said = prose(page)
    assert "ynthetic" not in said
    assert "MOS" in said


def test_results_are_those_of_the_run(page: Strict, finished_run: Path) -> None:
    models = json.loads((finished_run / "run" / "metrics.json").read_text("utf-8"))["models"]
    for figures in models.values():
        for each in figures.values():
            if each["median"] is not None:
                assert f"{each['median']:.3f} ± {each['sd']:.3f}" in page.text
    assert models["moe"]["rmse"]["median"] is None  # of 20 images a split
    assert f"– PLCC fitted, RMSE fitted: {TOO_FEW_TO_FIT}." in page.text
    assert "0123456789ab" in page.text
    assert f"--out {finished_run / 'run'}" in page.text


def test_absent_and_damaged_pictures_leave_gaps_that_are_named(root: Path) -> None:
    for path in sorted((root / "images").iterdir()):
        path.write_bytes(b"no image")
    (root / "images" / "01 a&b.png").unlink()
    page = parsed(report(root))
    columns, pictures = inert(page)["columns"], inert(page, "picture-0")
    assert pictures == [""] * len(columns["path"])
    assert re.search(r"(\d+) pictures could not be shown: .*and \d+ more\.", prose(page))
    assert f"{len(pictures)} pictures could not be shown" in prose(page)
    assert "01 a&b.png does not exist" in page.text
    assert "is not an image" in page.text


def test_a_picture_that_left_the_data_set_is_never_opened(root: Path) -> None:
    csv = root / "run" / "predictions.csv"
    secret = root / "secret.png"
    (root / "images" / "00 a&b.png").rename(secret)
    csv.write_text(csv.read_text("utf-8").replace("a&b.png", "../../secret.png"), "utf-8")
    page = parsed(report(root))
    assert not any(inert(page, "picture-0"))
    assert "is not in the data set any more" in page.text


def test_images_that_are_not_on_this_machine(root: Path) -> None:
    (root / "cache" / "tiny" / "root.json").unlink()
    said = prose(parsed(report(root)))
    assert re.search(r"pictures could not be shown: \S+ a&b\.png is not on this machine", said)


def test_intervals_and_the_ceiling_stand_in_the_table(root: Path) -> None:
    with changing(root / "run") as metrics:
        metrics["models"]["moe"]["srcc"] |= {"low": 0.8111, "high": 0.9222}
        metrics["ceiling"] = {"raters": 21, "srcc": 0.9861, "krcc": 0.9, "plcc": 0.99, "rmse": 0.14}
        metrics["intervals"] = {"level": 0.95, "drawn": "groups", "resamples": 1000}
    said = prose(parsed(report(root)))
    assert "0.811…0.922" in said
    assert "95 % 0.811…0.922" in said
    assert "Ceiling noise of 21 raters (assumed) 0.986" in said
    assert "bootstrap over groups and splits" in said


def test_runs_side_by_side(root: Path) -> None:
    second = root / "second"
    shutil.copytree(root / "run", second)
    frame = pd.read_csv(second / "predictions.csv")
    frame["score"] = frame["mos"]
    frame.to_csv(second / "predictions.csv", index=False)
    with changing(second) as metrics:
        for row in metrics["per_split"]["moe"]:
            row |= {"srcc": 1.0, "rmse": 0.0}
    page = parsed(write_report([root / "run", second], root / "cache" / "tiny", root / "both.html"))
    said, data = prose(page), inert(page)
    assert "Runs side by side" in said
    assert f"Differences of {second} from {root / 'run'}" in said
    assert "3 of 3" in said
    assert [run["name"] for run in data["columns"]["runs"]] == [str(root / "run"), str(second)]
    assert set(data["beside"]) == {"differences"}
    assert data["columns"]["runs"][1]["score"] == data["columns"]["mos"]


@pytest.mark.parametrize(
    ("field", "value"), [("protocol", "random"), ("dataset", "other"), ("target", "align")]
)
def test_runs_that_cannot_be_compared_are_refused(root: Path, field: str, value: str) -> None:
    second = root / "second"
    shutil.copytree(root / "run", second)
    with changing(second, "provenance.json") as provenance:
        provenance[field] = value
    with pytest.raises(AgiqaError, match=f"is of the {field} .* of {value}") as raised:
        write_report([root / "run", second], root / "cache" / "tiny", root / "both.html")
    assert "\n" not in str(raised.value)
    assert not (root / "both.html").exists()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").touch()
    monkeypatch.setattr("agiqa.views.report.page._page", lambda *_: pytest.fail("began to work"))
    with pytest.raises(AgiqaError, match=r"file: cannot write there \(Not a dir"):
        write_report([root / "run"], root / "cache" / "tiny", root / "file" / "report.html")


def test_a_run_beside_itself_is_refused(root: Path) -> None:
    with pytest.raises(AgiqaError, match=r"expected different runs, found .*run"):
        write_report([root / "run"] * 2, root / "cache" / "tiny", root / "both.html")


def test_a_run_without_evaluation_says_what_to_do(root: Path) -> None:
    (root / "run" / "metrics.json").unlink()
    with pytest.raises(
        AgiqaError, match=r"expected metrics\.json, found none: run `agiqa evaluate`"
    ):
        report(root)
    assert not (root / "out").exists()


PREDICTED = "model,seed,path,image_id,group,generator,mos,score"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", "{", "metrics.json: damaged"),
        ("metrics.json", "{}", "metrics.json: damaged .no dataset, models"),
        ("predictions.csv", "a,b\n1,2\n", "expected the columns model, seed"),
        ("predictions.csv", f"{PREDICTED}\n", "no rows of model moe"),
        (
            "predictions.csv",
            f"{PREDICTED}\nmoe,0,a,b,c,d,1,x\n",
            "damaged: expected numbers in column score, found 'x'",
        ),
        ("curves.csv", "model,epoch\n", "expected the column val_srcc; found model, epoch"),
    ],
)
def test_damaged_files_are_named(root: Path, file: str, content: str, said: str) -> None:
    (root / "run" / file).write_text(content, "utf-8")
    with pytest.raises(AgiqaError, match=said):
        report(root)


def test_predictions_that_were_cut_short_are_noticed(root: Path) -> None:
    with changing(root / "run") as metrics:
        for row in metrics["per_split"]["moe"]:
            row["images"] = 20
    predictions = root / "run" / "predictions.csv"
    lines = predictions.read_text("utf-8").splitlines()
    predictions.write_text("\n".join(lines[:-7]), "utf-8")
    with pytest.raises(AgiqaError, match=r"damaged: expected 60 rows of model moe, .* found 53"):
        report(root)


def test_figures_that_are_not_defined_are_dashes(root: Path) -> None:
    nothing = {"median": None, "mean": None, "sd": None, "why": "all are equal"}
    with changing(root / "run") as metrics:
        metrics["models"] = {m: dict.fromkeys(f, nothing) for m, f in metrics["models"].items()}
        for row in (row for rows in metrics["per_split"].values() for row in rows):
            row |= {key: None for key in row if key != "seed"}
    predictions = root / "run" / "predictions.csv"
    pd.read_csv(predictions).assign(score="").to_csv(predictions, index=False)
    page = report(root)
    assert "± –" not in parsed(page).text
    assert "all are equal" in parsed(page).text
    assert not re.search(
        r"\b(nan|None)\b",
        re.sub(r"<(style|script).*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL),
    )
