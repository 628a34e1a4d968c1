"""What is a URL, and how one is shown: without the password that it may carry."""

import hashlib
import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_USER = re.compile(r"(?<=://)[^/@]*@")


def is_url(address: object) -> bool:
    """Tell whether an address is a URL (`s3://bucket/cache`) and not a path."""
    return isinstance(address, str) and _SCHEME.match(address) is not None


def shown(url: str) -> str:
    """The URL for messages, names and passwords of users left out."""
    return _USER.sub("", url)


def folder_name(url: str) -> str:
    """A folder's name that no other URL has: readable, then 16 digits of the URL's sha256."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", shown(url)).strip("-.")[:60]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
