"""`understudy why` of a cluster: what is said of a node, and of the store, is what is so now."""

from dataclasses import replace

from tests.scenarios.stage import Stage

from understudy.core.cluster_why import node_reason, store_away
from understudy.core.record import DutyKind
from understudy.core.text import Name

A, B, ORDERS = Name("a"), Name("b"), Name("orders")


def said(script: str, name: Name) -> str:
    """Of that node, after this script."""
    stage = Stage()
    stage.perform(script)
    return node_reason(stage._view(), name)


def test_who_has_not_come_yet_has_not_left() -> None:
    """A node of the spec without a part waits for it; one that is not in the spec any more has left."""
    stage = Stage()
    stage.perform("cluster postgres zero_loss a,b,c\nnode b running=dead position=- streaming_from=-")
    absent = tuple(replace(duty, kind=DutyKind.ABSENT) if duty.node == "b" else duty for duty in stage.record.duties)
    view = replace(stage._view(), record=replace(stage.record, duties=absent))
    assert node_reason(view, B) == "b waits for its part."
    left = replace(view.service, nodes=tuple(node for node in view.service.nodes if node.name != "b"))
    assert node_reason(replace(view, service=left), B) == "b has left the cluster."


def test_what_is_tried_again_is_not_said_to_have_failed() -> None:
    """What was wrong the last time is told as that while the order is carried out anew."""
    failed = 'cluster postgres zero_loss a,b,c\nnode b streaming_from=- failed_epoch=3 failure="c is no primary yet."'
    assert said(failed, B).endswith("; its last order failed: c is no primary yet.")
    assert said(f"{failed} moves=-1", B).endswith("; this is tried again, after: c is no primary yet.")


def test_the_store_is_named() -> None:
    """Without a store it is said since when, and what is known here of who goes on."""
    stage = Stage()
    stage.perform("cluster postgres zero_loss a,b,c")
    record = stage.record
    cases = {
        "goes on, as most nodes promise not to take over, and nobody is promoted": (record, True, ()),
        "a takes no writes": (record, False, ()),
        "a was primary then, and b promised not to take over": (record, None, (B,)),
        "a was primary then, and goes on as long as": (record, None, ()),
        "orders had no primary then, and nobody is promoted": (replace(record, primary=None), None, ()),
        "what became of orders is not known": (None, None, ()),
    }
    for words, (known, reigns, promised) in cases.items():
        told = store_away(ORDERS, known, 75, reigns=reigns, promised=promised)
        assert told.startswith("The store has not answered for 75 s: ")
        assert words in told
