"""The real AGIQA-3K, as `prepare` reads it."""

from pathlib import Path

import pytest

from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.official import prepare_download
from agiqa.data.datasets.table import ImagesTable


@pytest.fixture(scope="session")
def agiqa3k(agiqa3k_folder: Path) -> ImagesTable:
    """Its table; mark users `agiqa3k`."""
    return prepare_download(OFFICIAL["agiqa-3k"], agiqa3k_folder)
