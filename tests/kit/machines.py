"""An S3 server (moto) in a process of its own, and machines: user cache folders to switch between.

Nothing leaves the loopback interface. tests/sharing has the fixtures.
"""

import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from agiqa.store import Shelf, default_root
from kit.processes import MOTO

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH = 16
_numbers = itertools.count()


class Server:
    """moto's S3 server; what it holds is gone when it is stopped."""

    def __init__(self, python: list[str], port: int, log: Path, host: str = "127.0.0.1") -> None:
        self.address = f"http://{host}:{port}"
        with log.open("wb") as file:
            command = [*python, *MOTO, "-H", host, "-p", str(port)]
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.address}/moto-api/", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.1)
        raise TimeoutError(f"moto did not start: {log.read_text()}")

    def let_in(self, everybody: bool) -> None:
        """Whether requests need credentials that exist; there are none."""
        url, count = f"{self.address}/moto-api/reset-auth", b"inf" if everybody else b"0"
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, count, plain), timeout=30).close()

    def reader(self) -> dict[str, str]:
        """The environment of somebody who may read every bucket and write to none."""
        import boto3

        iam = boto3.client("iam")
        iam.create_user(UserName=(name := f"reader-{next(_numbers)}"))
        may = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def use(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fsspec and DVC find this server, as a user would."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # a server that is down, is down
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(Path(__file__).with_name("there-is-no-such-file")))
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # it keeps the last address


def make_bucket() -> str:
    name = f"bucket-{next(_numbers)}"
    fsspec.filesystem("s3").mkdir(name)
    return name


class Machine:
    """A user's cache folder; what follows `enter` runs on this machine."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.monkeypatch = home, monkeypatch

    def enter(self, store: str | None = None) -> "Machine":
        self.monkeypatch.setenv("XDG_CACHE_HOME", str(self.home))
        if store is not None:
            self.monkeypatch.setenv("AGIQA_STORE", store)
        else:
            self.monkeypatch.delenv("AGIQA_STORE", raising=False)
        return self

    def shelf(self, fingerprint: dict[str, Any] = FINGERPRINT) -> Shelf:
        """The shelf in the ledger of this machine."""
        return Shelf.open(default_root(), fingerprint, WIDTH)

    def compute(self, ids: list[str]) -> Shelf:
        """Add rows as an extraction would."""
        shelf = self.shelf()
        with shelf.writer() as writer:
            writer.add(ids, vectors_of(ids))
        return shelf


def make_ids(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(row).encode()).hexdigest() for row in range(start, start + count)]


def vectors_of(ids: list[str]) -> np.ndarray:
    """Rows (N, WIDTH) that only depend on the ids, as an extractor's do."""
    seeds = [int(name[:8], 16) for name in ids]
    rows = [np.random.default_rng(seed).standard_normal(WIDTH) for seed in seeds]
    return np.array(rows).reshape(len(ids), WIDTH).astype("float16")
