"""The verbs that change the spec: apply, and apply --rollback."""

from understudy.cli.client import Client, understood
from understudy.cli.seeing import print_change
from understudy.control.view import SpecChange


def apply(client: Client, text: str) -> None:
    """Make this spec the one in force."""
    change: SpecChange = understood(SpecChange, client.post("apply", text=text))
    print_change(change)


def rollback(client: Client, version: int | None) -> None:
    """Apply an earlier version again."""
    change: SpecChange = understood(SpecChange, client.post("rollback", to_version=version))
    print_change(change)
