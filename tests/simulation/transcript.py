"""What happened in a run, line by line in fixed columns: true time, who, what, and the sentence.

12.345678  h2            record     fencing, epoch 4: somebody can take over
"""


class Transcript:
    """Collects lines; with `keep` False it costs next to nothing."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._lines: list[tuple[float, str, str, str]] = []

    def add(self, now_s: float, who: str, what: str, said: str) -> None:
        """Note one line."""
        if self.keep:
            self._lines.append((now_s, who, what, said))

    def __str__(self) -> str:
        """All of it."""
        return "".join(f"{now_s:12.6f}  {who:<12}  {what:<10}  {said}\n" for now_s, who, what, said in self._lines)
