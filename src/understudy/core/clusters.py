"""What happens to a cluster: the front of the failover core. Callers import from here.

RULES: no clock, no I/O, no engine's words. `decide` looks at a view and answers with the next record and what follows
from it; whoever calls it stores that before anything is done (`Decision`). The agents then `obey` the record.
"""

from understudy.core.clock import Now
from understudy.core.cluster_route import Route, route_of
from understudy.core.obey import obey
from understudy.core.report import ClusterView, Decision

__all__ = ["Route", "decide", "obey", "route_of"]


def decide(view: ClusterView, now: Now) -> Decision:
    """The next record of a cluster, and why. The record is the very one of the view when nothing in it changed."""
    del now
    return Decision(view.record)
