"""The JSON API of a real server in a process of its own."""

import asyncio
import base64
import hashlib
import io
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import agiqa
from serving_files import bomb


@pytest.fixture
def client(served: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def _png(seed: int) -> bytes:
    """A picture that no cache has seen."""
    pixels = np.random.default_rng([seed, os.getpid()]).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _files(*images: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", image) for image in images]


def test_scores_are_those_of_python(
    client: httpx.Client, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGIQA_STORE", str(workspace / "ledger"))
    paths = sorted((workspace / "images").glob("*.png"))[:3]
    expected = agiqa.load_scorer("runs/mine/random")(paths)
    files = _files(*((path.name, path.read_bytes()) for path in paths))
    for cached in (False, True):
        found = client.post("/api/v1/scores", files=files).json()
        for ours, theirs, path in zip(found["scores"], expected, paths, strict=True):
            assert ours["score"] == pytest.approx(theirs.score, abs=1e-5)
            assert ours["spread"] == pytest.approx(theirs.spread, abs=1e-5)
            assert ours["gate"] == pytest.approx(dict(theirs.gate), abs=1e-5)
            assert ours["name"] == path.name
            assert ours["image_id"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert ours["cached"] is cached
    assert found["refused"] == []
    assert found["target"] == "quality"


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
    assert [each["index"] for each in found["scores"]] == [4]
    assert "/" not in found["scores"][0]["name"]
    assert found["scores"][0]["name"].endswith("wd<b>.png")
    assert not any("tmp" in reason or "/" in reason for reason in reasons)
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


def test_what_the_run_is_and_how_the_server_does(client: httpx.Client) -> None:
    facts = client.get("/api/v1/run").json()
    assert (facts["run"], facts["dataset"], facts["protocol"]) == ("mine/random", "mine", "random")
    assert facts["tested"]["srcc"]["low"] <= facts["tested"]["srcc"]["median"]
    assert facts["limits"]["request_bytes"] == 4 << 20
    assert facts["scale"]["low"] < facts["scale"]["high"]
    assert client.get("/health").json() == {"live": True, "ready": True, "waiting": 0}
    assert client.get("/health/ready").status_code == 200
    metrics = client.get("/metrics").text
    assert 'route="/api/v1/run",status="200"' in metrics
    assert "process_resident_memory_bytes" in metrics


def test_the_operators_folder_by_number_alone(client: httpx.Client, workspace: Path) -> None:
    listed = client.get("/api/v1/folder").json()
    assert listed["images"][:2] == ["00.png", "01.png"]
    found = client.post("/api/v1/folder/scores", json={"numbers": [1, 0]}).json()
    assert [each["name"] for each in found["scores"]] == ["01.png", "00.png"]
    picture = client.get("/api/v1/folder/1/picture")
    assert Image.open(io.BytesIO(picture.content)).size == (32, 24)
    for path in ("/api/v1/folder/40/picture", "/api/v1/folder/-1/picture", "/static/../app.py",
                 "/static/%2e%2e/app.py", "/docs/..%2f__init__.py", "/docs/index.html",
                 "/api/v1/folder/..%2f/picture"):  # fmt: skip
        assert client.get(path).status_code in (400, 404), path
    assert client.post("/api/v1/folder/scores", json={"numbers": [40]}).status_code == 404
    assert (workspace / "images/00.png").is_file()


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
    nothing = client.post("/api/v1/scores")
    assert (nothing.status_code, "images" in nothing.json()["detail"]) == (400, True)
    prompts = client.post(
        "/api/v1/scores",
        files=_files(*[("a.png", _png(4))] * 3),
        data={"image_prompts": ["a", "b"]},
    )
    assert prompts.status_code == 400
    assert "one for each of 3 images; found 2" in prompts.json()["detail"]
    long = client.post(
        "/api/v1/scores", files=_files(("a.png", _png(4))), data={"image_prompts": "x" * 5000}
    )
    assert long.status_code == 400


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


def test_the_api_describes_itself_offline(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.0")
    assert "/api/v1/scores" in described["paths"]
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text


def test_a_stop_ends_the_process_and_its_files(
    serve: Callable[..., Any], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve("--forget") as served:
        assert httpx.get(f"{served.url}/api/v1/folder").status_code == 404
        (folder,) = tmp_path.glob("agiqa-serve-*")
        sent = httpx.post(
            f"{served.url}/api/v1/scores", files=_files(("a.png", _png(7))), timeout=60
        )
        assert sent.status_code == 200
        assert (folder / "ledger").is_dir()
        assert list((folder / "uploads").iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
    assert list(tmp_path.glob("agiqa-serve-*")) == []
    assert "Stopped." in "".join(served.lines)
