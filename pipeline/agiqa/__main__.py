"""`python -m agiqa` is `agiqa`."""

from agiqa.cli import main

main()
