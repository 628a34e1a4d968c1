"""Addresses on the hub: what is no run there, too large, or out of reach is one line."""

from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.runs.publish import fetch_run, is_on_hub
from kit.hub_server import serve
from kit.publishing import use_hub

RUN = {"model.safetensors": b"x", "params.yaml": b"", "prompts.yaml": b"", "provenance.json": b"{}"}


def refusal(address: str) -> str:
    with pytest.raises(AgiqaError) as caught:
        fetch_run(address)
    message = str(caught.value)
    assert "\n" not in message
    assert address in message
    return message


@pytest.mark.parametrize(
    "address",
    ["hf://", "hf://run", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a/b@x y", "hf://-/b"],
)
def test_what_is_no_address(address: str) -> None:
    assert is_on_hub(address)
    assert "Expected hf://user/name[@revision]" in refusal(address)


def test_what_is_on_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve({"config.json": b"{}", **RUN}) as hub:
        use_hub(monkeypatch, tmp_path / "hub", hub.address)
        folder = fetch_run("hf://tester/run@main")
        assert {path.name for path in folder.iterdir()} == RUN.keys()
        for name, size in (("model.safetensors", 1 << 40), ("provenance.json", 9 << 20)):
            hub.sizes = {name: size}
            assert f"{name} has {size:,} bytes, at most" in refusal("hf://tester/large")
        hub.sizes = {}
        del hub.files["prompts.yaml"], hub.files["params.yaml"]
        assert "no published run: expected params.yaml, prompts.yaml" in refusal("hf://tester/some")
    use_hub(monkeypatch, tmp_path / "hub", "http://127.0.0.1:9")
    assert "cannot be fetched (ConnectError" in refusal("hf://tester/other")
