"""Mistakes that people make in a spec: what is replaced in SMALL, by what, the path of the fault, words of its cure."""

_W1 = "      - {name: w1, address: 10.0.0.1:9001}\n"
_LISTEN = "    listen: 127.0.0.1:8080\n"


def _line(line):
    return _LISTEN, f"{_LISTEN}    {line}\n"


def _in_w1(field):
    return _W1, _W1.replace("}", f", {field}}}")


MISFITS = [
    (_LISTEN, "    listen: 8080\n", "services.web.listen", "0.0.0.0:8080"),
    (_LISTEN, "    listen: 127.0.0.1\n", "services.web.listen", "lacks a port"),
    (_LISTEN, "    listen: web.local:80\n", "services.web.listen", "not looked up; write the IP address"),
    (_LISTEN, '    listen: "localhost:8\\t0"\n', "services.web.listen", "no address"),
    (_LISTEN, "    listen: '[fe80::1%a b]:80'\n", "services.web.listen", "no address"),
    (_LISTEN, "", "services.web.listen", "missing: add it, such as `listen: 0.0.0.0:8080`"),
    (*_line("balance: round-robin"), "services.web.balance", "did you mean round_robin?"),
    (*_line('"[key]": {}'), "services.web.'[key]'", "there is no field"),
    (*_line("healht: {}"), "services.web.healht", "did you mean health?"),
    (*_line("health: {http: {}, tcp: {}}"), "services.web.health", "tcp and http stand here together"),
    (*_line("health: {interval: 300}"), "services.web.health.interval", "300ms or 300s"),
    (*_line("health: {interval: 0.5s}"), "services.web.health.interval", "such as 500ms"),
    (*_line("health: {passive: yes}"), "services.web.health.passive", "true or false"),
    (*_line("health: {http: {expect: 600}}"), "services.web.health.http.expect", "200-299"),
    (*_line('health: {http: {body: "a\\nb"}}'), "services.web.health.http.body", "printable"),
    (*_line("health: {http: {path: /a b}}"), "services.web.health.http.path", "percent-encode"),
    (*_line('health: {command: [a, "b\\0c"]}'), "services.web.health.command[1]", "NUL"),
    (*_line("ejection: {budget: 30}"), "services.web.ejection.budget", "30%"),
    (*_in_w1("weight: 257"), "services.web.endpoints[0].weight", "at most 256"),
    (*_in_w1("weight: -1"), "services.web.endpoints[0].weight", "at least 0"),
    (*_in_w1("weight: 1.5"), "services.web.endpoints[0].weight", "whole number"),
    (*_in_w1("secrets: {A: env:SHOP_PASSWORD_NOW}"), "services.web.endpoints[0].secrets", "add `run`"),
    (*_in_w1("secrets: {}"), "services.web.endpoints[0].secrets", "add `run`"),
    (*_in_w1("run: []"), "services.web.endpoints[0].run", "at least 1"),
    (_W1, "      - w1\n", "services.web.endpoints[0]", "no mapping"),
    ("kind: http", "kind: tcp\n    affinity: {cookie: A}", "services.web.affinity", "kind: http"),
    ("kind: http", "kind: redis", "services.web.kind", "come in a later version"),
    ("cluster: shop", "cluster: shop\nstore: etcd", "store", "store: {etcd: {endpoints:"),
    (
        "cluster: shop",
        "cluster: shop\nstore: {etcd: {}}",
        "store.etcd.endpoints",
        "such as `endpoints: [10.0.0.1:2379]`",
    ),
    ("cluster: shop", "cluster: shop\nstore: {etcd: {endpoints: [etcd:2379]}}", "store.etcd.endpoints[0]", "looked up"),
    ("cluster: shop", "cluster: shop\nrouters: [h1]", "routers", "name the machines in `hosts`"),
    ("cluster: shop", "cluster: shop\nhosts: {h1: web.local}", "hosts.h1", "such as 10.0.0.1"),
    ("cluster: shop", "cluster: shop\nhosts: {h1: 10.0.0.1:80}", "hosts.h1", "without a port"),
    ("cluster: shop", "cluster: shop\nhosts: {1h: 10.0.0.1}", "hosts.1h", "a letter, then"),
    ("cluster: shop", "cluster: shop\nhosts: {}", "hosts", "at least 1"),
    ("cluster: shop", "cluster: shop\nagent_port: 70000", "agent_port", "at most 65535"),
    ("cluster: shop", "cluster: true", "cluster", "in quotes"),
    ("  web:", "  1web:", "services.1web", "a letter, then"),
    ("  web:", "  7:", "services.7", "in quotes"),
]
"""An editor with our schema marks these too."""

CLASHES = [
    (_LISTEN, "    listen: 127.0.0.1:8600\n", "services.web.listen", "clashes with 127.0.0.1:8600 of api"),
    ("cluster: shop", "cluster: shop\napi: 0.0.0.0:8600", "api", "could be reached from outside"),
    (*_line("health: {interval: 2d}"), "services.web.health.interval", "50ms to 1h"),
    (*_line("health: {timeout: 10s}"), "services.web.health.timeout", "ms, the default): at most the interval"),
    (*_line("health: {interval: 400ms, slow_start: 1199ms}"), "services.web.health.slow_start", "1200ms, or 0s"),
    (*_line("health: {http: {expect: 299-200}}"), "services.web.health.http.expect", "200-299"),
    (*_line("ejection: {hold: 10m}"), "services.web.ejection.hold", "at most 5m"),
    (*_line("health: {passive: false}\n    ejection: {}"), "services.web.ejection", "passive"),
    (*_line("failover: {mode: gradual}"), "services.web.failover.mode", "group: backup"),
    (*_line("failover: {over: 1m}"), "services.web.failover.over", "mode: gradual"),
    ("  web:", "  &a web:", "services.web", "anchor"),
    (_W1, _W1 + _W1.replace("9001", "9003"), "services.web.endpoints[1].name", "another endpoint too (line 7)"),
    (_W1, _W1.replace("w1", "w0") + _W1, "services.web.endpoints[1].address", "in line 7 already"),
    (_W1, _W1.replace("10.0.0.1:9001", "127.0.0.1:8080"), "services.web.endpoints[0].address", "circle"),
    (_W1, "      - &a {name: w1, address: 10.0.0.1:9001}\n", "services.web.endpoints[0]", "anchor"),
    (_W1, "      - !!map {name: w1, address: 10.0.0.1:9001}\n", "services.web.endpoints[0]", "tag"),
]
"""Only the reader can tell: several fields together, bounds within a text, YAML itself."""

_A = "      - {name: a, address: 127.0.0.1:7441, data: orders/a}\n"
_READ = "read: 127.0.0.1:7433}\n"


def _more(line):
    return _READ, f"{_READ}    {line}\n"


def _failover(fields):
    return _more(f"failover: {{{fields}}}")


def _in_a(field):
    return _A, _A.replace("}", f", {field}}}")


_O = "services.orders"
_FO = f"{_O}.failover"

CLUSTER_MISFITS = [
    ("kind: postgres", "kind: postgers", f"{_O}.kind", "did you mean postgres?"),
    ("    kind: postgres\n", "", f"{_O}.kind", "such as `kind: postgres`"),
    ("listen: {write: 127.0.0.1:7432, read: 127.0.0.1:7433}", "listen: 127.0.0.1:7432", f"{_O}.listen", "no mapping"),
    ("write: 127.0.0.1:7432, ", "", f"{_O}.listen.write", "such as `write: 0.0.0.0:7432`"),
    ("write:", "wirte: 127.0.0.1:7431, write:", f"{_O}.listen.wirte", "did you mean write?"),
    (*_more("endpoints: []"), f"{_O}.endpoints", "there is no field"),
    (*_more("durability: none"), f"{_O}.durability", "zero_loss or {max_loss: 1MiB}"),
    (*_more("durability: [zero_loss]"), f"{_O}.durability", "zero_loss or {max_loss: 1MiB}"),
    (*_more("durability: {}"), f"{_O}.durability.max_loss", "such as `max_loss: 1MiB`"),
    (*_more("durability: {max_loss: 100}"), f"{_O}.durability.max_loss", "100B or 100MiB"),
    (*_more("durability: {max_loss: 1MiB, ack: 1}"), f"{_O}.durability.ack", "known here: max_loss"),
    (*_more("acks: 0"), f"{_O}.acks", "at least 1"),
    (*_more("max_lag: 16MB"), f"{_O}.max_lag", "64KiB, 1MiB"),
    (*_more("superuser: {name: pg_chief}"), f"{_O}.superuser.name", "`pg_`"),
    (*_more("superuser: {password: hunter2}"), f"{_O}.superuser.password", "env:NAME or file:PATH"),
    (*_failover("mode: gradual"), f"{_FO}.mode", "choose one of fast, manual"),
    (*_failover("lease: 4"), f"{_FO}.lease", "4ms or 4s"),
    (*_failover("failback_every: 2h"), f"{_FO}.failback_every", "name the preferred node"),
    (*_in_a("priority: 101"), f"{_O}.nodes[0].priority", "at most 100"),
    (*_in_a("run: [a]"), f"{_O}.nodes[0].run", "there is no field"),
    (_A, "      - a\n", f"{_O}.nodes[0]", "no mapping"),
    (_A, _A.replace("orders/a", "../a"), f"{_O}.nodes[0].data", "without '.' and '..'"),
    (_A, _A.replace("orders/a", '"/srv/my data"'), f"{_O}.nodes[0].data", "letters, digits"),
    (_A, _A.replace("orders/a", "/" + 77 * "a"), f"{_O}.nodes[0].data", "at most 77"),
    (_A, _A.replace(", data: orders/a", ""), f"{_O}.nodes[0].data", "such as `data: /var/lib/understudy/orders`"),
]
"""The same for a cluster: what is replaced in ORDERS."""

CLUSTER_CLASHES = [
    (*_more("acks: 2"), f"{_O}.nodes", "needs 3 nodes, and here is 2: add nodes, or write durability: {max_loss"),
    (*_more("acks: 1\n    durability: {max_loss: 1MiB}"), f"{_O}.acks", "`acks` has no meaning with max_loss"),
    (*_more("durability: {max_loss: 0B}"), f"{_O}.durability.max_loss", "1B to 1TiB"),
    (*_failover("lease: 1s"), f"{_FO}.lease", "2s to 1m"),
    (*_failover("renew: 2s"), _FO, "is 5000 ms and must not exceed the lease of 4000 ms: write a lease of at least 8s"),
    (*_failover("renew: 1s, timeout: 1s, margin: 1001ms"), _FO, "at least 4001ms, or shorten renew and timeout and"),
    (*_failover("lease: 1m, timeout: 30s"), _FO, "must not exceed the lease of 60000 ms: shorten timeout"),
    (*_failover("preferred: z"), f"{_FO}.preferred", "there is no node z: choose among a, b"),
    (
        _READ + "    nodes:\n" + _A,
        f"{_READ}    failover: {{preferred: a}}\n    nodes:\n{_A[:-2]}, priority: 0}}\n",
        f"{_FO}.preferred",
        "prefer another",
    ),
    (", read: 127.0.0.1:7433}\n", "}\n    max_lag: 1MiB\n", f"{_O}.max_lag", "add listen.read"),
    (_A, _A.replace("name: a", "name: b"), f"{_O}.nodes[1].name", "another node too (line 7)"),
    (_A, _A.replace("name: a", "name: B"), f"{_O}.nodes[1].name", "b is too much like the name B"),
    (_A, _A.replace("orders/a", "orders/b.understudy"), f"{_O}.nodes[0].data", "what understudy keeps itself"),
    (*_more("superuser: {name: understudy}"), f"{_O}.superuser.name", "such as postgres"),
    (_A, _A.replace("7441", "7442"), f"{_O}.nodes[1].address", f"clashes with 127.0.0.1:7442 of {_O}.nodes[0].address"),
    (_A, _A.replace("7441", "7432"), f"{_O}.nodes[0].address", f"clashes with 127.0.0.1:7432 of {_O}.listen.write"),
    (_A, _A.replace("7441", "8601"), f"{_O}.nodes[0].address", "clashes with 127.0.0.1:8601 of agent_port"),
    (_A, _A.replace("127.0.0.1:7441", "0.0.0.0:7441"), f"{_O}.nodes[0].address", "write its own address"),
    (_READ, "read: 127.0.0.1:7432}\n", f"{_O}.listen.read", f"clashes with 127.0.0.1:7432 of {_O}.listen.write"),
    (_A, _A.replace("orders/a", "orders/b"), f"{_O}.nodes[1].data", f"is the directory orders/b of {_O}.nodes[0]"),
    (
        _A,
        _A.replace("orders/a", "orders"),
        f"{_O}.nodes[1].data",
        f"overlaps with the directory orders of {_O}.nodes[0]",
    ),
    (_A, _A.replace("orders/a", "orders/b/c"), f"{_O}.nodes[1].data", "a directory of its own"),
    (*_in_a("host: h1"), f"{_O}.nodes[0].host", "name the machines in `hosts`"),
    ("cluster: shop", "cluster: shop\nagent_port: 8600", "agent_port", "clashes with 127.0.0.1:8600 of api"),
    (*_more("superuser: {password: env:NOPE}"), f"{_O}.superuser.password", "NOPE is not set"),
]

_NODE = "host: h2, address: 10.9.0.2:5432, data: /srv/orders"

HOST_CLASHES = [
    ("h2: 10.0.0.2", "h2: 10.0.0.1", "hosts.h2", "one machine is one host"),
    ("h2: 10.0.0.2", "h2: 0.0.0.0", "hosts.h2", "no machine's address"),
    ("h2: 10.0.0.2", "h2: 127.0.0.2", "hosts.h2", "the other hosts cannot reach 127.0.0.2"),
    ("[h1]", "[h4]", "routers[0]", "choose among h1, h2 and h3"),
    ("[h1]", "[h1, h2]", "routers", "need one router in this version, and here are h1 and h2: write routers: [h1]"),
    ('"10.0.0.2:2379"', '"10.0.0.1:2379"', "store.etcd.endpoints[1]", "is in line 5 already"),
    ('"10.0.0.2:2379"', '"0.0.0.0:2379"', "store.etcd.endpoints[1]", "write its own address"),
    ('"10.0.0.2:2379"', '"127.0.0.1:2379"', "store.etcd.endpoints[1]", "look for etcd on itself"),
    ("    username: understudy\n", "", "store.etcd.password", "without `username`"),
    (", key: keys/key.pem", "", "store.etcd.tls.cert", "without `key`"),
    ("listen: 0.0.0.0:8080", "listen: 10.0.0.2:8080", "services.web.listen", "0.0.0.0:8080, or routers: [h2]"),
    ("read: 0.0.0.0:7433", "read: 10.0.0.2:7433", f"{_O}.listen.read", "h2, and h1 is a router too"),
    (
        "10.0.0.1:9001",
        "10.0.0.9:9001",
        "services.web.endpoints[0].address",
        "10.0.0.9 is not h1's: write 10.0.0.1:9001",
    ),
    ("10.0.0.1:9001", "127.0.0.1:9001", "services.web.endpoints[0].address", "write 10.0.0.1:9001, or remove `run`"),
    ("10.0.0.1:9001", "10.0.0.1:7432", "services.web.endpoints[0].address", "listen.write, line 20 on h1"),
    ("10.0.0.1:9001", "10.0.0.2:9001", "services.web.endpoints[0].address", "runs on the router's host"),
    ("read: 0.0.0.0:7433", "read: 0.0.0.0:2379", f"{_O}.listen.read", "of store.etcd.endpoints[0], line 5 on h1"),
    (_NODE, _NODE.replace("host: h2, ", ""), f"{_O}.nodes[1]", "add one of h1, h2 and h3"),
    (_NODE, _NODE.replace("h2", "h5"), f"{_O}.nodes[1].host", "choose among h1, h2 and h3"),
    (
        _NODE,
        _NODE.replace("10.9.0.2:5432", "10.0.0.1:5433"),
        f"{_O}.nodes[1].address",
        "10.0.0.1 is the address of h1, and the",
    ),
    (_NODE, _NODE.replace("10.9.0.2", "127.0.0.1"), f"{_O}.nodes[1].address", "cannot reach 127.0.0.1:5432"),
    (_NODE, _NODE.replace("10.9.0.2:5432", "10.0.0.2:8601"), f"{_O}.nodes[1].address", "of agent_port"),
    (
        _NODE,
        _NODE.replace("h2", "h1").replace("10.9.0.2", "10.9.0.1"),
        f"{_O}.nodes[1].data",
        "the directory /srv/orders",
    ),
]
"""The same for several hosts: what is replaced in SEVERAL."""
