"""No network and an empty hub cache: a local model is extracted, and no connection is tried."""

from collections.abc import Callable
from pathlib import Path


def test_extract_without_a_network(
    tmp_path: Path,
    tiny_lmm: Path,
    write_images: Callable[..., Path],
    command_line: Callable,
    count: Callable,
) -> None:
    pictures = write_images("a.png", "b.jpg", "c.webp")
    where, store = ["--cache", str(tmp_path / "cache")], {"AGIQA_STORE": str(tmp_path / "ledger")}
    command = ["extract", "ours", *where]
    for kind in ("semantic", "visual"):
        command += [f"--set={kind}.model={tiny_lmm}", f"--set={kind}.name=tiny-{kind}"]
    command += ["--set=visual.layers=[1]", "--set=visual.image_size=32", "--set=visual.closeup=0"]
    attempts, runs = [], []
    for arguments in (
        ["prepare", "ours", "--from", str(pictures), *where],
        [*command, "--dry-run"],
        command,
    ):
        run = command_line.run("agiqa_offline", arguments, store)
        assert run["status"] == 0, run
        attempts += run["attempts"]
        runs.append(run)
    assert runs[-1]["out"].count("computed in") == 2
    assert sorted(path.name for path in (tmp_path / "cache" / "ours").glob("*.zarr")) == [
        "tiny-semantic.zarr",
        "tiny-visual.zarr",
    ]
    local = f"--set=semantic.model={tiny_lmm}"
    hub = [*command, "--only", "semantic"]
    hub[hub.index(local)] = "--set=semantic.model=nobody/has-this-model"
    caught = command_line.run("agiqa_offline", hub, store)
    assert caught["attempts"], caught
    assert caught["status"] == 1
    count(commands=len(runs), connections_tried=len(attempts))
    assert attempts == []
