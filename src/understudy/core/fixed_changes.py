"""What of a change of the spec cannot be brought about while the agents run, a sentence each that says what to do."""

from collections.abc import Iterator

from understudy.core.model import Spec
from understudy.core.stateful import EngineNode, PostgresService

_KIND = "{} cannot become another kind of service: give the new one another name"


def fixed_changes(old: Spec, new: Spec) -> tuple[str, ...]:
    """Why `new` cannot follow `old`; empty when it can."""
    return (*_agents_fixed(old, new), *_hosts_fixed(old, new), *_clusters_fixed(old, new))


def _agents_fixed(old: Spec, new: Spec) -> Iterator[str]:
    fixed = {
        "the cluster's name": (old.cluster, new.cluster),
        "the store": (old.store, new.store),
        "the API's address": (old.api, new.api),
        "the agents' port": (old.agent_port, new.agent_port),
        "whether there are several hosts": (bool(old.hosts), bool(new.hosts)),
    }
    for what, (was, wanted) in fixed.items():
        if was != wanted:
            how = "cannot change" if old.hosts else "cannot change while the agent runs"
            yield f"{what} {how} ({was} is in force, {wanted} is asked for): set it back{_anew(old)}"


def _anew(old: Spec) -> str:
    """The other way out, where there is one: of several hosts each asks the store what is in force when it starts."""
    return "" if old.hosts else ", or end the agent and start it with the new spec"


def _hosts_fixed(old: Spec, new: Spec) -> Iterator[str]:
    for host in new.hosts:
        former = old.host(host.name)
        if former is not None and former.address != host.address:
            yield (
                f"the address of {host.name} cannot change ({former.address} is in force, {host.address} is asked "
                "for): set it back, or remove the host and add it under another name"
            )
    for name in old.router_hosts if old.hosts else ():
        if new.host(name) is not None and name not in new.router_hosts:
            yield f"{name} cannot stop being a router while its HAProxy runs: keep it among the routers"


def _clusters_fixed(old: Spec, new: Spec) -> Iterator[str]:
    pools = {pool.name for pool in old.services}
    for name in sorted(pools & {cluster.name for cluster in new.clusters}):
        yield _KIND.format(name)
    for pool in new.services:
        if old.cluster_service(pool.name):
            yield _KIND.format(pool.name)
    for service in new.clusters:
        former = old.cluster_service(service.name)
        if former is not None and former is not service:
            yield from _cluster_fixed(former, service, _anew(old))


def _cluster_fixed(old: PostgresService, new: PostgresService, anew: str) -> Iterator[str]:
    if old.superuser.name != new.superuser.name:
        yield (
            f"{new.name}: the superuser {old.superuser.name} was made with the cluster and cannot become "
            f"{new.superuser.name}: set it back"
        )
    if old.cluster.timers != new.cluster.timers and anew:  # of several agents, each takes them when it starts anew
        yield f"{new.name}: its timers cannot change while the agent runs, for it rests on them: set them back{anew}"
    staying = [(former, node) for node in new.nodes if (former := old.node(node.name))]
    for former, node in staying:
        yield from _node_fixed(f"{new.name}/{node.name}", former, node)
    if not staying:
        yield (
            f"{new.name}: none of its nodes would stay, and with them all its data would leave: "
            "add the new nodes first, and remove the old ones when those have followed"
        )
    leaving = [node for node in old.nodes if new.node(node.name) is None]
    joining = [node for node in new.nodes if old.node(node.name) is None]
    for node in joining:
        heir = next((gone for gone in leaving if (gone.node.host, gone.data) == (node.node.host, node.data)), None)
        if heir is not None:
            yield (
                f"{new.name}/{node.name}: {node.data} is still the directory of {heir.name}: "
                f"choose another, or apply the spec without {heir.name} first"
            )


def _node_fixed(whose: str, old: EngineNode, new: EngineNode) -> Iterator[str]:
    fixed = {
        "host": (old.node.host, new.node.host),
        "address": (old.address, new.address),
        "data directory": (old.data, new.data),
    }
    for what, (was, wanted) in fixed.items():
        if was != wanted:
            yield (
                f"{whose}: the {what} of a node cannot change ({was} is in force, {wanted} is asked for): "
                "set it back, or remove the node and add it under another name"
            )
