"""The only module that names concrete adapters; it puts the parts together and hands them to the command line."""


def main() -> None:
    """Entry point of `understudy`."""
    raise NotImplementedError
