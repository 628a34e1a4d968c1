"""What a data set's authors call a score, and what the field calls it.

AGIQA-3K has `align` and AIGCIQA2023 has `correspondence` where others say alignment; a column
`mos` is quality. A table keeps its authors' names; whoever asks for a target may use any of them,
so that a run on one data set finds its like in another.
"""

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable

SYNONYMS = {
    "quality": ("mos",),
    "alignment": ("align", "correspondence"),
}  # the field's name: others for the same


def field_name(target: str) -> str:
    """Give the field's name of a target; its own where it has no other."""
    for name, synonyms in SYNONYMS.items():
        if target.lower() in synonyms:
            return name
    return target


def find_target(table: ImagesTable, asked: str) -> str:
    """Find the table's column for the target `asked`, by its own name or another for it.

    Raises:
        AgiqaError: there is none; says which there are.
    """
    names = [target.name for target in table.targets]
    if asked in names:
        return asked
    alike = [name for name in names if field_name(name) == field_name(asked)]
    if len(alike) == 1:
        return alike[0]
    if len(names) == 1:
        hint = f"give --target {names[0]}"
    else:
        hint = f"it has {', '.join(names) or 'none, so it can be scored but not fitted'}"
    raise AgiqaError(f"Data set '{table.name}' has no target '{asked}'; {hint}.")
