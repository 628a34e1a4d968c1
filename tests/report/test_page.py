import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agiqa.errors import AgiqaError
from agiqa.report import write_report

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
        if self.open[-1:] != ["style"]:
            self.text += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert len(named) == len(attrs), f"attribute twice in <{tag}>"
        self.tags[tag] += 1
        self.attributes.append((tag, named))
        if identity := named.get("id"):
            self.ids[identity] += 1
        self.resources += [named[k] or "" for k in ("src", "href", "xlink:href") if k in named]


def parsed(page: Path) -> Strict:
    parser = Strict()
    parser.feed(page.read_text("utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def prose(page: Strict) -> str:
    return re.sub(r"\s+", " ", page.text)


def report(root: Path) -> Path:
    return write_report(root / "run", root / "cache" / "tiny", root / "out" / "report.html")


def test_the_page_is_one_sound_file_that_loads_nothing(tiny_run: Callable[..., Path]) -> None:
    path = report(tiny_run())
    page = parsed(path)
    assert page.tags["html"] == page.tags["main"] == page.tags["h1"] == 1
    assert page.tags["table"] == 2
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert len(page.resources) > 18
    for resource in page.resources:
        assert resource.startswith(("data:image/", "#")), resource
    assert not re.search(r"@import|url\((?!#)", path.read_text("utf-8"))
    assert path.stat().st_size < 3_000_000


def test_references_inside_the_plots_resolve(tiny_run: Callable[..., Path]) -> None:
    path = report(tiny_run())
    page = parsed(path)
    inner = [each[1:] for each in page.resources if each.startswith("#")]
    inner += re.findall(r"url\(#([^)]+)\)", path.read_text("utf-8"))
    assert len(inner) > 50
    assert set(inner) <= set(page.ids)


def test_every_picture_and_plot_has_words(tiny_run: Callable[..., Path]) -> None:
    page = parsed(report(tiny_run()))
    plots = [named for tag, named in page.attributes if tag == "svg"]
    pictures = [named for tag, named in page.attributes if tag == "img"]
    assert len(plots) == 4
    assert len(pictures) == 18
    assert all(each["role"] == "img" and each["aria-label"] for each in plots)
    assert all((each["alt"] or "").startswith('a "cat" & <script>') for each in pictures)


def test_text_from_data_is_escaped(tiny_run: Callable[..., Path]) -> None:
    path = report(tiny_run())
    page = parsed(path)  # a raw <b> or <i> of a generator or setting would be left open
    assert "<script" not in path.read_text("utf-8")
    assert "CC0 <1>" in page.text
    assert "good <b>" in page.text
    assert "lr: 0.002 # <i>" in page.text


def test_the_plots_follow_the_pages_colours_and_fonts(tiny_run: Callable[..., Path]) -> None:
    text = report(tiny_run()).read_text("utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    for plot in plots:
        assert "var(--ink)" in plot
        assert "#0101" not in plot
        assert "DejaVu" not in plot
        for colour in re.findall(r"var\((--[\w-]+)\)", plot):
            assert f"{colour}:" in text
    assert "花 $x$" in "".join(plots)


def test_same_run_same_bytes(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    assert report(root).read_bytes() == report(root).read_bytes()


def test_synthetic_data_are_called_so_and_have_no_mos(tiny_run: Callable[..., Path]) -> None:
    page = parsed(report(tiny_run(synthetic=True)))
    said = prose(page)
    assert "Synthetic data set: severity of degradation, not human opinion." in said
    assert "MOS" not in said + "".join(str(named) for _, named in page.attributes)
    assert "true score" in said


def test_real_data_have_no_banner(tiny_run: Callable[..., Path]) -> None:
    said = prose(parsed(report(tiny_run())))
    assert "ynthetic" not in said
    assert "MOS" in said


def test_results_are_those_of_the_run(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    page = parsed(report(root))
    models = json.loads((root / "run" / "metrics.json").read_text("utf-8"))["models"]
    for figures in models.values():
        for each in figures.values():
            assert f"{each['median']:.3f} ± {each['sd']:.3f}" in page.text
    assert "0123456789ab" in page.text
    assert f"--out {root / 'run'}" in page.text


def test_absent_and_damaged_pictures_leave_gaps_that_are_named(
    tiny_run: Callable[..., Path],
) -> None:
    root = tiny_run()
    for path in sorted((root / "images").iterdir()):
        path.write_bytes(b"no image")
    (root / "images" / "00 a&b.png").unlink()
    page = parsed(report(root))
    assert page.tags["img"] == 0
    assert prose(page).count("not available") == 18
    assert re.search(r"18 pictures could not be shown: .*and 13 more\.", prose(page))
    assert "is not an image" in page.text


def test_a_picture_that_left_the_data_set_is_never_opened(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    csv = root / "run" / "predictions.csv"
    secret = root / "secret.png"
    (root / "images" / "00 a&b.png").rename(secret)
    csv.write_text(csv.read_text("utf-8").replace("a&b.png", "../../secret.png"), "utf-8")
    page = parsed(report(root))
    assert page.tags["img"] == 0
    assert "is not in the data set any more" in page.text


def test_a_run_without_evaluation_says_what_to_do(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    (root / "run" / "metrics.json").unlink()
    with pytest.raises(
        AgiqaError, match=r"expected metrics\.json, found none: run `agiqa evaluate`"
    ):
        report(root)
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", "{", "metrics.json: damaged"),
        ("metrics.json", "{}", "metrics.json: damaged .no dataset, models"),
        ("predictions.csv", "a,b\n1,2\n", "expected the columns model, seed"),
        ("predictions.csv", "model,seed,path,generator,mos,score\n", "no rows of model moe"),
        ("curves.csv", "model,epoch\n", "expected the column val_srcc; found model, epoch"),
    ],
)
def test_damaged_files_are_named(
    tiny_run: Callable[..., Path], file: str, content: str, said: str
) -> None:
    root = tiny_run()
    (root / "run" / file).write_text(content, "utf-8")
    with pytest.raises(AgiqaError, match=said):
        report(root)


def test_figures_that_are_not_defined_are_dashes(tiny_run: Callable[..., Path]) -> None:
    root = tiny_run()
    path = root / "run" / "metrics.json"
    metrics = json.loads(path.read_text("utf-8"))
    nothing = {"median": None, "mean": None, "sd": None}
    metrics["models"] = {m: dict.fromkeys(f, nothing) for m, f in metrics["models"].items()}
    metrics["per_split"] = {
        m: [{k: None if k != "seed" else v for k, v in row.items()} for row in rows]
        for m, rows in metrics["per_split"].items()
    }
    path.write_text(json.dumps(metrics), "utf-8")
    predictions = root / "run" / "predictions.csv"
    lines = predictions.read_text("utf-8").splitlines()
    column = lines[0].split(",").index("score")
    emptied = [
        ",".join("" if i == column else cell for i, cell in enumerate(line.split(",")))
        for line in lines[1:]
    ]
    predictions.write_text("\n".join([lines[0], *emptied]), "utf-8")
    page = report(root)
    assert "– ± –" in parsed(page).text
    assert not re.search(
        r"\b(nan|None)\b",
        re.sub(r"<style>.*?</style>", "", page.read_text("utf-8"), flags=re.DOTALL),
    )
