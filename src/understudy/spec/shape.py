"""The shape of a spec file: its outermost fields. And which kind of service has which shape.

The services' own fields are in pool_shape.py and cluster_shape.py, how one value is read in fields.py; what several
fields must be together is crosscheck.py's.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag

from understudy.core import model
from understudy.core.model import Kind
from understudy.core.text import Name
from understudy.spec import pool_shape
from understudy.spec.cluster_shape import POSTGRES, PostgresShape
from understudy.spec.faults import shown
from understudy.spec.fields import (
    AddressText,
    FilePath,
    HostName,
    IpText,
    Reads,
    Reference,
    ServiceName,
    Shape,
    UserText,
    word,
    word_or_mapping,
)
from understudy.spec.pool_shape import PoolShape

MAX_SERVICES = 10_000
MAX_HOSTS = 100
MAX_MEMBERS = 20

KINDS = (*map(str, Kind), POSTGRES)
LATER_KINDS = ("redis", "mariadb", "command")
"""Kinds that the design knows and this version does not."""

_DEFAULT = model.Spec(Name("x"), ())


def shape_of_service(value: Any) -> str:
    """Which shape a service has, also when its kind is misspelt: the tag in the union of services."""
    if not isinstance(value, dict) or value.get("kind") in list(Kind):
        return "pool"
    alike = "nodes" in value and "endpoints" not in value
    return "cluster" if value.get("kind") == POSTGRES or alike else "pool"


SERVICE_SHAPES: dict[str, type[Shape]] = {"pool": PoolShape, "cluster": PostgresShape}


class TlsShape(Shape):
    """How etcd is reached by TLS; paths begin in the folder of this file."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"cert": ["key"], "key": ["cert"]}})

    ca: Annotated[FilePath, Field(examples=["/etc/understudy/etcd-ca.pem"])]
    """The certificates that we trust, in PEM."""
    cert: FilePath | None = None
    """Our own certificate, where etcd asks for one."""
    key: FilePath | None = None
    """Its key."""


class EtcdShape(Shape):
    """An etcd cluster, 3.4 or newer."""

    model_config = ConfigDict(
        json_schema_extra={"dependentRequired": {"username": ["password"], "password": ["username"]}}
    )

    endpoints: Annotated[list[AddressText], Field(min_length=1, max_length=MAX_MEMBERS, examples=[["10.0.0.1:2379"]])]
    """IP:PORT of its members."""
    username: UserText | None = None
    """The user of etcd that we log in as."""
    password: Reference | None = None
    """Where its password is: env:NAME or file:PATH."""
    tls: TlsShape | None = None
    """Left out where etcd is spoken to in plain text."""


class StoreShape(Shape):
    """The store of several machines."""

    etcd: Annotated[EtcdShape, Field(examples=[{"endpoints": ["10.0.0.1:2379"]}])]
    """An etcd cluster: etcd: {endpoints: ["10.0.0.1:2379"]}"""


def _sqlite(value: Any) -> str:
    if value != "sqlite":
        raise ValueError(
            f"{shown(value)} will not do: write sqlite on one machine, and on several etcd, such as "
            'store: {etcd: {endpoints: ["10.0.0.1:2379"]}}'
        )
    return "sqlite"


Store = Annotated[
    Annotated[str, Reads(_sqlite, {"const": "sqlite"}), Tag("word")] | Annotated[StoreShape, Tag("mapping")],
    Discriminator(word_or_mapping),
]
Service = Annotated[
    Annotated[PoolShape, Tag("pool")] | Annotated[PostgresShape, Tag("cluster")], Discriminator(shape_of_service)
]


class SpecShape(Shape):
    """The services that understudy keeps available, in one file."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"routers": ["hosts"]}})

    cluster: Annotated[Name, word(Name), Field(examples=["shop"])]
    """The name of the whole."""
    store: Store = "sqlite"
    """Where facts are kept: sqlite, a file in the state directory, or etcd, which several machines need."""
    hosts: Annotated[
        dict[HostName, IpText],
        Field(
            min_length=1,
            max_length=MAX_HOSTS,
            examples=[{"h1": "10.0.0.1"}],
            json_schema_extra={"additionalProperties": False},
        ),
    ] = Field(default_factory=dict)
    """The machines, each with the IP address at which the others reach it; left out on one machine."""
    routers: Annotated[list[Annotated[Name, word(Name)]], Field(min_length=1, max_length=MAX_HOSTS)] = Field(
        default_factory=list
    )
    """The hosts that run a router; all of them when it is left out."""
    api: AddressText = Field(default=_DEFAULT.api, json_schema_extra={"default": str(_DEFAULT.api)})
    """IP:PORT of the API and the metrics."""
    agent_port: Annotated[int, Field(ge=1, le=65535)] = _DEFAULT.agent_port
    """The TCP port at which the agents of clusters answer each other and the routers, on each host's address."""
    services: Annotated[
        dict[ServiceName, Service],
        Field(
            min_length=1,
            max_length=MAX_SERVICES,
            examples=[{"web": pool_shape.EXAMPLE}],
            json_schema_extra={"additionalProperties": False},
        ),
    ]
    """The services by name."""

    @property
    def pools(self) -> dict[str, PoolShape]:
        """The stateless ones."""
        return {name: service for name, service in self.services.items() if isinstance(service, PoolShape)}

    @property
    def clusters(self) -> dict[str, PostgresShape]:
        """The stateful ones."""
        return {name: service for name, service in self.services.items() if isinstance(service, PostgresShape)}
