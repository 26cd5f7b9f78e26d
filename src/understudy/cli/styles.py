"""Which state is shown in which colour. Nothing else."""

from understudy.core.cluster_why import NodeHealth
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Oper

STYLES = {
    ServiceHealth.UP: "bold green",
    ServiceHealth.DEGRADED: "bold yellow",
    ServiceHealth.DOWN: "bold white on red",
    ServiceHealth.UNKNOWN: "bold yellow",
    Oper.UP: "green",
    Oper.STARTING: "yellow",
    Oper.DOWN: "bold red",
    Oper.MAINT: "cyan",
    Oper.DRAIN: "cyan",
    Oper.UNKNOWN: "yellow",
    NodeHealth.UP: "green",
    NodeHealth.SUSPECT: "yellow",
    NodeHealth.DOWN: "bold red",
    NodeHealth.UNKNOWN: "yellow",
}
