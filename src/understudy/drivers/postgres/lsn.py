"""PostgreSQL's way to write a position in its WAL, and the names of the files that it is in. Pure arithmetic."""


def parse(words: str) -> int:
    """`16/B374D848` as a number of bytes; ValueError when it is none."""
    high, slash, low = words.partition("/")
    if not slash:
        raise ValueError(f"{words!r} is no position in the WAL: it looks like 16/B374D848")
    return (int(high, 16) << 32) | int(low, 16)


def text(offset: int) -> str:
    """A number of bytes as `16/B374D848`."""
    return f"{offset >> 32:X}/{offset & 0xFFFFFFFF:X}"


def segment_name(timeline: int, offset: int, segment_bytes: int) -> str:
    """The file that holds the byte at that offset."""
    number, a_log = offset // segment_bytes, 0x1_0000_0000 // segment_bytes
    return f"{timeline:08X}{number // a_log:08X}{number % a_log:08X}"
