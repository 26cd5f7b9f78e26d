"""The names of everything in the store. Nothing else may spell a key."""

from understudy.core.text import Name

POOLS = "pools/"
LEDGERS = "ledger/"
JOURNAL = "journal/"
JOURNAL_HEAD = "journal/head"
JOURNAL_PAGES = "journal/page/"
VERSIONS = "spec/version/"
TEXTS = "spec/text/"
IN_FORCE = "spec/in_force"
CLUSTERS = "clusters/"
CLUSTER_KEY = "key"
"""By which the agents of the cluster know each other."""

_DIGITS = 16
"""Numbers have leading zeros, so that the order of keys is that of the numbers."""


def pool(service: Name) -> str:
    """Of what is decided about a pool."""
    return f"{POOLS}{service}"


def ledger(service: Name) -> str:
    """Of a service's sums."""
    return f"{LEDGERS}{service}"


def journal_page(first: int) -> str:
    """Of the page of the journal that begins with that number."""
    return f"{JOURNAL_PAGES}{first:0{_DIGITS}}"


def journal_page_first(key: str) -> int:
    """The number with which the page under that key begins."""
    return int(key.removeprefix(JOURNAL_PAGES))


def version(number: int) -> str:
    """Of what there is to know about a version of the spec, but for its text."""
    return f"{VERSIONS}{number:0{_DIGITS}}"


def version_text(number: int) -> str:
    """Of the text of a version of the spec."""
    return f"{TEXTS}{number:0{_DIGITS}}"


def cluster(service: Name) -> str:
    """What all keys of a stateful cluster begin with."""
    return f"{CLUSTERS}{service}/"


def cluster_record(service: Name) -> str:
    """Of what is decided about a cluster."""
    return f"{CLUSTERS}{service}/record"


def cluster_steward(service: Name) -> str:
    """Of the lease of whoever decides about a cluster."""
    return f"{CLUSTERS}{service}/steward"


def cluster_primary(service: Name) -> str:
    """Of the lease of a cluster's primary."""
    return f"{CLUSTERS}{service}/primary"


def cluster_report(service: Name, node: Name) -> str:
    """Of what a node's agent says of it."""
    return f"{CLUSTERS}{service}/reports/{node}"


def cluster_router(service: Name, host: Name) -> str:
    """Of what a host's router says that it routes."""
    return f"{CLUSTERS}{service}/routers/{host}"


def cluster_commands(service: Name) -> str:
    """What the keys of all wishes begin with that wait for a cluster's steward."""
    return f"{CLUSTERS}{service}/commands/"


def cluster_command(service: Name, number: int) -> str:
    """Of one such wish."""
    return f"{cluster_commands(service)}{number:0{_DIGITS}}"
