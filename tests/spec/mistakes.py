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
    (_LISTEN, "    listen: '[fe80::1%a b]:80'\n", "services.web.listen", "no address"),
    (_LISTEN, "", "services.web.listen", "missing: add it, such as `listen: 0.0.0.0:8080`"),
    (*_line("balance: round-robin"), "services.web.balance", "did you mean round_robin?"),
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
    (*_in_w1("run: []"), "services.web.endpoints[0].run", "at least 1"),
    (_W1, "      - w1\n", "services.web.endpoints[0]", "no mapping"),
    ("kind: http", "kind: tcp\n    affinity: {cookie: A}", "services.web.affinity", "kind: http"),
    ("kind: http", "kind: redis", "services.web.kind", "come in a later version"),
    ("cluster: shop", "cluster: shop\nstore: etcd", "store", "etcd comes later"),
    ("cluster: shop", "cluster: shop\nrouters: [h1]", "routers", "several routers come in a later version"),
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
