"""Reads a spec: parse, fit, cross-check, build; and fetches the text of a file. The order is the whole story."""

from collections.abc import Mapping
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.model import Spec
from understudy.spec.build import build
from understudy.spec.crosscheck import crosscheck
from understudy.spec.document import MAX_BYTES, parse
from understudy.spec.faults import Report
from understudy.spec.fit import fit


def read(text: str, directory: str, environment: Mapping[str, str]) -> Spec:
    """The spec that the text stands for. Raises SpecFaults, which carries all that is wrong with it at once.

    directory: the folder of the file; commands start there, and relative `file:` secrets begin there.
    environment: where `env:` secrets are looked up. Secrets are only looked for, their values are not kept.
    """
    report = Report()
    shape = fit(parse(text, report), report)
    crosscheck(shape, directory, environment, report)
    report.raise_any()
    return build(shape, text, str(Path(directory).absolute()))


def text_of(path: Path) -> str:
    """The text of a spec file; raises Refused with one sentence when it cannot be had."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise Refused(
            f"{path} cannot be read ({fault.strerror}): name a spec file, such as examples/web.yaml"
        ) from None
    if len(content) > MAX_BYTES:
        raise Refused(f"{path} has more than {MAX_BYTES} bytes: a spec is smaller than that; is it the right file?")
    try:
        return content.decode()
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise Refused(f"{path} is no UTF-8 text (line {line}): save it as UTF-8") from None
