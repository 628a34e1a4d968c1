"""The JSON API of a real server in a process of its own."""

import asyncio
import base64
import hashlib
import io
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
from PIL import Image

import agiqa
from agiqa.runs.files import load_run
from agiqa.runs.score import Scorer, default_run
from agiqa.views.server.limits import Limits
from agiqa.views.server.service import run_facts
from kit.serving_files import bomb, many_scans, wide


@pytest.fixture(scope="module")
def described(served: Any) -> Any:
    return httpx.get(f"{served.url}/openapi.json", timeout=300).json()


@pytest.fixture
def client(served: Any, described: Any) -> Iterator[httpx.Client]:
    """Asks the server, and holds every answer against its description."""

    def hold(response: httpx.Response) -> None:
        operation = _operation(described, response.request)
        if operation is None:
            return
        status = str(response.status_code)
        answer = operation["responses"][status]
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in answer["content"], (status, kind)
        if int(status) >= 400 and kind == "application/json":
            response.read()
            schema = answer["content"][kind]["schema"]["$ref"].rpartition("/")[2]
            assert set(response.json()) == set(
                described["components"]["schemas"][schema]["properties"]
            )

    with httpx.Client(base_url=served.url, timeout=300, event_hooks={"response": [hold]}) as client:
        yield client


def _operation(described: Any, request: httpx.Request) -> Any:
    """What is said of the request's route; None where it is none of the API."""
    for template, operations in described["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), request.url.path):
            return operations[request.method.lower()]
    return None


def _png(seed: int) -> bytes:
    """A picture that no cache has seen."""
    pixels = np.random.default_rng([seed, os.getpid()]).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _files(*images: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", image) for image in images]


@pytest.mark.gpu
def test_scores_are_those_of_python(
    client: httpx.Client, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGIQA_STORE", str(workspace / "ledger"))
    paths = sorted((workspace / "images").glob("*.png"))[:3]
    expected = agiqa.create_scorer("runs/mine/random")(paths)
    files = _files(*((path.name, path.read_bytes()) for path in paths))
    for _ in range(2):  # their vectors are in the ledger; then they are remembered
        found = client.post("/api/v1/scores", files=files).json()
        for ours, theirs, path in zip(found["scores"], expected, paths, strict=True):
            assert ours["score"] == pytest.approx(theirs.score, abs=1e-5)
            assert ours["disagreement"] == pytest.approx(theirs.disagreement, abs=1e-5)
            assert ours["gate"] == pytest.approx(dict(theirs.gate), abs=1e-5)
            assert ours["name"] == path.name
            assert ours["image_id"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert ours["cached"] is True
            assert ours["trained_on"] is theirs.trained_on is True
            assert ours["held_out"] == theirs.held_out
    assert any("were in the run's training" in note for note in found["notes"])
    assert found["refused"] == []
    assert found["target"] == "quality"


def test_an_image_is_cached_once_it_was_seen(client: httpx.Client) -> None:
    found = [
        client.post("/api/v1/scores", files=_files(("a.png", _png(8)))).json()["scores"][0]
        for _ in range(2)
    ]
    assert [score["cached"] for score in found] == [False, True]
    assert [score["trained_on"] for score in found] == [False, False]
    assert found[0]["held_out"] is None
    assert found[0]["score"] == found[1]["score"]


def test_each_bad_file_is_refused_alone_and_in_words(client: httpx.Client, served: Any) -> None:
    before = served.resident
    files = _files(
        ("text.png", b"no image at all"),
        ("empty.png", b""),
        ("bomb.png", bomb()),
        ("cut.png", _png(1)[:900]),
        ("../../etc/pass\x07wd<b>.png", _png(2)),
    )
    found = client.post("/api/v1/scores", files=files).json()
    reasons = [each["reason"] for each in found["refused"]]
    assert [each["index"] for each in found["refused"]] == [0, 1, 2, 3]
    assert "is not an image" in reasons[0]
    assert "is empty (0 bytes)" in reasons[1]
    assert "30000 x 30000 pixels, more than the limit of 64,000,000" in reasons[2]
    assert "truncated" in reasons[3] or "damaged" in reasons[3]
    assert [score["index"] for score in found["scores"]] == [4]
    assert "/" not in found["scores"][0]["name"]
    assert found["scores"][0]["name"].endswith("wd<b>.png")
    assert not any("tmp" in reason or "/" in reason for reason in reasons)
    assert served.resident - before < 200e6


def test_a_file_that_keeps_a_decoder_busy_is_refused(client: httpx.Client, served: Any) -> None:
    """Minutes of work in half a megabyte, gigabytes in a hundred kilobytes: others go on."""
    before = served.resident
    costly = _files(("slow.jpg", many_scans()), ("wide.png", wide()), ("good.png", _png(10)))
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.post, "/api/v1/scores", files=costly) for _ in range(3)]
        assert client.get("/health").json()["live"]
        good = client.post("/api/v1/scores", files=_files(("other.png", _png(11)))).json()
        assert len(good["scores"]) == 1
    for answer in answers:
        found = answer.result().json()
        assert [refused["name"] for refused in found["refused"]] == ["slow.jpg", "wide.png"]
        assert all(len(refused["reason"].splitlines()) == 1 for refused in found["refused"])
        assert [score["name"] for score in found["scores"]] == ["good.png"]
    assert served.resident - before < 200e6


def test_too_large_is_refused_before_it_is_read(client: httpx.Client, served: Any) -> None:
    """200 MB, said in the header or not: an answer within seconds, and no memory for it."""
    before, started = served.resident, time.monotonic()
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(200):
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    for headers in (kind, {**kind, "content-length": str((200 << 20) + len(head))}):
        try:
            answer = client.post("/api/v1/scores", content=body(), headers=headers)
        except httpx.WriteError as error:
            pytest.fail(f"cut off without an answer: {error}")
        assert answer.status_code == 413
        assert "larger than 4 MiB" in answer.json()["detail"]
    assert served.resident - before < 50e6
    assert time.monotonic() - started < 30
    many = client.post("/api/v1/scores", files=_files(*[("a.png", b"x")] * 9))
    assert many.status_code == 400
    assert "8" in many.json()["detail"]


def test_fifty_at_once(served: Any) -> None:
    """All answered, each with its own score, and together rather than one by one."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as client:
            return await asyncio.gather(
                *(
                    client.post("/api/v1/scores", files=_files((f"{n}.png", _png(100 + n))))
                    for n in range(50)
                )
            )

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    found = [answer.json()["scores"][0] for answer in answers]
    assert [each["name"] for each in found] == [f"{n}.png" for n in range(50)]
    assert len({each["score"] for each in found}) > 40
    text = httpx.get(f"{served.url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    mean = float(values["agiqa_batch_images_sum"]) / float(values["agiqa_batch_images_count"])
    assert mean > 1.5


def test_a_published_run_points_to_its_card() -> None:
    run = load_run(default_run())
    scorer = cast(Scorer, SimpleNamespace(run=run, scale=(0.0, 5.0), asks_image_prompt=False))
    facts = run_facts(scorer, {}, Limits())
    assert (facts.tested, facts.published) == (None, True)
    script = Path(str(files("agiqa.views.server") / "static/page.js")).read_text("utf-8")
    assert "facts.published ?" in script


def test_what_the_run_is_and_how_the_server_does(client: httpx.Client) -> None:
    facts = client.get("/api/v1/run").json()
    assert (facts["run"], facts["dataset"], facts["protocol"]) == ("mine/random", "mine", "random")
    assert facts["tested"]["srcc"]["low"] <= facts["tested"]["srcc"]["median"]
    assert facts["tested"]["gate"] == "gate: constant, validation found nothing better."
    assert facts["limits"]["request_bytes"] == 4 << 20
    assert facts["scale"]["low"] < facts["scale"]["high"]
    assert client.get("/health").json() == {"live": True, "ready": True, "waiting": 0}
    assert client.get("/health/ready").status_code == 200
    metrics = client.get("/metrics").text
    assert 'route="/api/v1/run",status="200"' in metrics
    assert "process_resident_memory_bytes" in metrics


def test_pictures_are_asked_for_by_number_alone(client: httpx.Client) -> None:
    picture = client.get("/api/v1/dataset/1/picture")
    assert Image.open(io.BytesIO(picture.content)).size == (32, 24)
    for path in ("/api/v1/dataset/40/picture", "/api/v1/dataset/-1/picture", "/static/../api.py",
                 "/static/%2e%2e/api.py", "/docs/..%2f__init__.py", "/docs/index.html",
                 "/api/v1/dataset/..%2f/picture"):  # fmt: skip
        assert client.get(path).status_code in (400, 404), path


def test_nobody_elses_page_and_no_other_name_is_answered(client: httpx.Client) -> None:
    image = _files(("a.png", _png(3)))
    rebound = client.post("/api/v1/scores", files=image, headers={"host": "evil.example"})
    assert rebound.status_code == 400
    foreign = client.post("/api/v1/scores", files=image, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    ours = client.post("/api/v1/scores", files=image, headers={"origin": str(client.base_url)})
    assert ours.status_code == 200
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_bad_requests_get_one_line(client: httpx.Client) -> None:
    assert client.post("/api/v1/scores").status_code == 415
    nothing = client.post("/api/v1/scores", files={"pictures": b"x"})
    assert (nothing.status_code, "images" in nothing.json()["detail"]) == (400, True)
    prompts = client.post(
        "/api/v1/scores",
        files=_files(*[("a.png", _png(4))] * 3),
        data={"image_prompts": ["a", "b"]},
    )
    assert prompts.status_code == 400
    assert "one for each of 3 images; found 2" in prompts.json()["detail"]


@pytest.mark.parametrize("prompt", ["x" * 4097, "é" * 2049])
def test_a_prompt_is_at_most_4_kib_on_every_route(client: httpx.Client, prompt: str) -> None:
    image = _png(4)
    for answer in (
        client.post("/api/v1/scores", files={"images": image}, data={"image_prompts": prompt}),
        client.post("/api/v1/explanations", files={"image": image}, data={"image_prompt": prompt}),
    ):
        assert answer.status_code == 400
        assert len(answer.json()["detail"].splitlines()) == 1
        assert "4" in answer.json()["detail"]  # 4KB, or 4096 bytes


def test_what_is_given_twice_is_refused(client: httpx.Client) -> None:
    """One of the two would be taken without a word."""
    files = [("image", ("a.png", _png(1))), ("image", ("b.png", _png(2)))]
    answer = client.post("/api/v1/explanations", files=files)
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "Expected image once, found it twice.",
    )
    assert client.get("/api/v1/dataset/0/picture?size=small&size=large").status_code == 400


def test_another_media_type_is_refused(client: httpx.Client) -> None:
    expected = "Expected a body of type multipart/form-data, found text/csv."
    for path in ("scores", "explanations"):
        answer = client.post(f"/api/v1/{path}", content=b"x", headers={"content-type": "text/csv"})
        assert (answer.status_code, answer.json()["detail"]) == (415, expected)


@pytest.mark.parametrize(
    "part",
    [
        b'name="images"; filename="\xff\xfe.png"',
        b'name="images"; filename="a\x1b[2J\x07.png"',
        b'name="images"; filename="a.png"\r\nX-More: \xe9\r\nContent-Type: text/html',
        b"name=images; filename=a; filename*=UTF-8''%e2%82%ac%0d%0aSet-Cookie:x.png",
        b'name="images"; filename="' + "\u202egnp.exe".encode() + b'"',
        b'name="images"; filename="' + b"x" * 3000 + b'"',
    ],
)
def test_names_of_all_kinds_are_only_shown(client: httpx.Client, served: Any, part: bytes) -> None:
    body = b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n--x--\r\n"
    answer = client.post(
        "/api/v1/scores",
        content=body % (part, _png(9)),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    (score,) = answer.json()["scores"]
    assert score["name"].isprintable()
    assert len(score["name"]) <= 255
    assert not any("\x1b" in line for line in served.lines)


def test_a_body_that_is_no_form_is_one_line(client: httpx.Client, served: Any) -> None:
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=" + "x" * 300, b"x"),
        ("multipart/form-data; boundary=x; charset=nothing", b"--y"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 10_000),
    ):
        answer = client.post("/api/v1/scores", content=body, headers={"content-type": kind})
        assert answer.status_code == 400, kind
        assert len(answer.json()["detail"].splitlines()) == 1
    assert not any("Traceback" in line for line in served.lines)


def test_a_client_that_leaves_is_no_trouble(client: httpx.Client, served: Any) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for sent in (
        b"",
        b"POST /api/v1/scores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nx",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    with pytest.raises(httpx.TimeoutException):
        client.post("/api/v1/scores", files=_files(("a.png", _png(5))), timeout=0.001)
    assert client.post("/api/v1/scores", files=_files(("a.png", _png(6)))).status_code == 200
    assert served.process.poll() is None
    assert not [line for line in served.lines if "Traceback" in line], served.lines


def test_explanations_come_or_say_why_not(client: httpx.Client, workspace: Path) -> None:
    said = client.get("/api/v1/run").json()["explanations"]
    image = (workspace / "images/00.png").read_bytes()
    found = client.post("/api/v1/explanations", files={"image": ("a.png", image)}).json()
    for kind, part in (("maps", "map"), ("reasons", "reasons"), ("neighbours", "neighbours")):
        if said[kind]:
            assert found["unavailable"][kind] == said[kind]
            assert len(said[kind].splitlines()) == 1
        elif part == "map":
            picture = Image.open(io.BytesIO(base64.b64decode(found["map"]["png"])))
            assert picture.size[0] >= 32
        elif part == "neighbours":
            assert found["neighbours"][0]["path"] != "00.png"
            url = found["neighbours"][0]["picture"]
            assert client.get(url).headers["content-type"] == "image/jpeg"
    refused = client.post("/api/v1/explanations", files={"image": ("a.png", b"text")})
    assert (refused.status_code, "a.png: is not an image" in refused.json()["detail"]) == (
        400,
        True,
    )


def test_the_api_describes_itself_offline(client: httpx.Client, described: Any) -> None:
    assert described["openapi"].startswith("3.0")
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    names = {operation["operationId"]: operation["summary"] for operation in operations}
    assert len(names) == len(operations)
    assert names["scoreImages"] == "Score images"
    assert all(re.fullmatch("[a-z]+[A-Za-z]*", name) for name in names)
    assert all(operation["tags"] and operation["description"] for operation in operations)
    assert not any("422" in operation["responses"] for operation in operations)
    assert "HTTPValidationError" not in described["components"]["schemas"]
    scores = described["paths"]["/api/v1/scores"]["post"]["responses"]
    assert set(scores) == {"200", "400", "403", "408", "413", "415", "500", "503", "504", "default"}
    assert "404" in described["paths"]["/api/v1/dataset/{number}/picture"]["get"]["responses"]
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text


def test_a_stop_ends_the_process_and_its_files(
    serve: Callable[..., Any], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve("--forget") as served:
        (folder,) = tmp_path.glob("agiqa-serve-*")
        sent = httpx.post(
            f"{served.url}/api/v1/scores", files=_files(("a.png", _png(7))), timeout=300
        )
        assert sent.status_code == 200
        assert (folder / "ledger").is_dir()
        assert list((folder / "uploads").iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(120) == 0
    assert list(tmp_path.glob("agiqa-serve-*")) == []
    assert "Stopped." in "".join(served.lines)


def test_a_second_signal_cuts_off_what_is_under_way(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not come is waited for; the second signal answers it with 503."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve() as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=300) as connection:
            connection.sendall(
                b"POST /api/v1/scores HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9\r\n\r\n"
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # it is waited for
            served.process.send_signal(signal.SIGTERM)
            while not any(line.startswith("Stopping: 1 requests") for line in served.lines):
                assert served.process.poll() is None
                time.sleep(0.01)
            assert httpx.get(f"{served.url}/health/ready").status_code == 503
            assert httpx.get(f"{served.url}/api/v1/run").headers["retry-after"] == "5"
            served.process.send_signal(signal.SIGINT)
            answer = b""
            while part := connection.recv(1000):
                answer += part
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in answer
        assert served.process.wait(60) == 1
    assert "Stopped; 1 requests were not answered." in "".join(served.lines)
    assert list(tmp_path.glob("agiqa-serve-*")) == []


def test_the_page_takes_nothing_for_markup() -> None:
    """Names, reasons and runs are text; tests/views/server/test_page.py shows one in a browser."""
    static = Path(agiqa.__file__).parent / "views/server/static"
    for script in static.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(",
                             script.read_text()), script  # fmt: skip
