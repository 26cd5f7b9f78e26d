"""Where the programs of a major version of PostgreSQL are on this machine. Looks at directories, runs nothing."""

import re
import shutil
from pathlib import Path

from understudy.core.errors import Refused

VERSIONS = range(13, 18)
"""Which major versions we know."""
_PLACES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin")


def major_of(data: Path) -> int | None:
    """The major version of that data; None where there is none. Raises Refused when it cannot be read."""
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"The version of the data in {data} cannot be read ({error}); is it PostgreSQL's?") from error


def programs(major: int | None = None) -> Path:
    """The directory with the programs of that version, or of the newest that is installed. Raises Refused."""
    wanted = sorted(VERSIONS, reverse=True) if major is None else [major]
    if major is not None and major not in VERSIONS:
        raise Refused(f"PostgreSQL {major} is not known here: understudy runs {VERSIONS[0]} to {VERSIONS[-1]}.")
    for version in wanted:
        for place in _PLACES:
            directory = Path(place.format(version))
            if (directory / "postgres").exists():
                return directory
    on_path = shutil.which("postgres")
    if on_path is not None:
        directory = Path(on_path).resolve().parent
        found = re.search(r"(?:^|\D)(1\d)(?:\D|$)", str(directory))
        if major is None or (found is not None and int(found[1]) == major):
            return directory
    version_words = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    raise Refused(f"{version_words} is not installed on this machine: install it (Debian: apt-get install postgresql).")
