"""Names that become folders, stages and settings: what data sets and targets may be called.

A data set's name is a folder below cache/ and runs/, part of the names of DVC's stages and of keys
in params.yaml, and a word of command lines; a target's is a folder in a run, and a word of lists
that commas part. A name is judged where it comes in: `prepare`, params.yaml, images tables.
"""

import re

from agiqa.core.errors import AgiqaError

_DATA_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UNFIT = re.compile(r"""[/\\,:*?"<>|]""")  # in names of folders, or between targets


def data_set_name(name: object, prefix: str = "data set") -> str:
    """The name as it is, if a data set, store or extractor may have it.

    Raises:
        AgiqaError: it may not; `prefix` begins the message.
    """
    if not isinstance(name, str) or not _DATA_SET.fullmatch(name):
        raise AgiqaError(
            f"{prefix}: expected a plain name, found {name!r}: give one of up to 64 letters, "
            "digits, dashes and underscores that begins with a letter or digit, such as my-set_2"
        )
    return name


def target_name(name: object, prefix: str) -> str:
    """The name as it is, if a target may have it.

    Raises:
        AgiqaError: it may not; `prefix` begins the message.
    """
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or name != name.strip()
        or not 0 < len(name.encode()) <= 100
        or name[0] in ".-"
        or _UNFIT.search(name)
    ):
        raise AgiqaError(
            f"{prefix}: expected the name of a score to have up to 100 printable characters, "
            f'none of / \\ , : * ? " < > |, no dot or dash before and no space around it, found '
            f"{name!r}: rename it"
        )
    return name
