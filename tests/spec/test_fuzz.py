"""Whatever stands in a file: either a spec whose every value keeps its promise, or faults in plain sentences."""

import copy
import dataclasses
import functools
import json
import types
import typing
from typing import Any, get_args, get_origin, get_type_hints

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.spec.samples import FULL, SEVERAL, faults_of, spec_of

from understudy.core.model import MAX_WEIGHT, Spec
from understudy.core.text import Address, Word
from understudy.spec import schema
from understudy.spec.document import parse
from understudy.spec.faults import Report, in_words

FUZZ = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
VALIDATOR = jsonschema.Draft202012Validator(schema())
TREES = [yaml.safe_load(FULL), yaml.safe_load(SEVERAL)]
WORDS = sorted({word for word in (FULL + SEVERAL).replace(",", " ").split() if len(word) > 1})

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, 1.5, float("nan"), [], {}, [[]], {"": {}}, {1: 2}, "", " ", "\n", "\0"]),
    st.sampled_from(["a\nserver x 1:1", "a; disable server b/s", "[fe80::1%a b]:1", "0.0.0.0:80", "[::]:80"]),
    st.sampled_from(["0s", "1ms", "99999999d", "-1s", "100%", "101%", "200-100", "first", "backup", "tcp"]),
    st.sampled_from(["64KiB", "1MB", "zero_loss", "postgres", "../x", "/", "/srv/orders", "1.2.3.4", "::1", "pg_x"]),
    st.sampled_from(["env:", "env:SHOP_PASSWORD_NOW", "file:/dev/zero", "file:."]),
    st.sampled_from(WORDS),
    st.text(max_size=30),
    st.lists(st.sampled_from([*WORDS, 0, True, None]), max_size=4),
    st.dictionaries(st.sampled_from([*WORDS, "http", "run", "weight"]), st.sampled_from(WORDS), max_size=3),
)


def places(node, path=()):
    """Every place of a tree, as a path."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


PLACES = [[path for path in places(tree) if path] for tree in TREES]


def at(tree, path):
    """What stands in a place of a tree."""
    return functools.reduce(lambda node, step: node[step], path, tree)


FREE = {"services", "hosts", "secrets"}
"""Mappings whose names are the user's."""


@st.composite
def mutated_trees(draw):
    """A full sample, as JSON (which is YAML too), with some values replaced, removed, copied or added."""
    which = draw(st.integers(0, len(TREES) - 1))
    tree, known = copy.deepcopy(TREES[which]), PLACES[which]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(known))
        try:
            above, key = at(tree, path[:-1]), path[-1]
            change = draw(st.sampled_from(["replace", "replace", "remove", "copy", "add"]))
            if change == "replace":
                above[key] = draw(NASTY)
            elif change == "remove":
                del above[key]
            elif change == "copy":
                above[key] = copy.deepcopy(at(tree, draw(st.sampled_from(known))))
            elif isinstance(above, dict):
                above[draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)))] = draw(NASTY)
            else:
                above.insert(0, draw(NASTY))
        except (LookupError, TypeError, AttributeError):
            continue  # an earlier change took the place away
    return json.dumps(tree, indent=1, ensure_ascii=draw(st.booleans()))


@st.composite
def mutated_texts(draw):
    """A full sample with spans of its bytes replaced by others."""
    data = bytearray(draw(st.sampled_from([FULL, SEVERAL])).encode())
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 12))] = draw(PIECES)
    return data.decode(errors=draw(st.sampled_from(["surrogateescape", "replace"])))


PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"\n", b"\t", b"  ", b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!str ", b"<<: "]),
    st.sampled_from([b'"', b"'", b"|", b">", b"%", b"---\n", b"...\n", b"#", b"?", b"\\x0a"]),
    st.sampled_from([b"\xef\xbb\xbf", b"\0", b"\xe2\x80\xa8", b"0", b"9", b"null", b"true"]),
)


def check(text):
    """The reader's promise about any text."""
    faults = faults_of(text)
    event("refused" if faults else "accepted")
    for fault in faults:
        assert 1 <= fault.line <= len(text.splitlines()) + 1, fault
        assert str(fault).isprintable(), fault
        assert len(str(fault)) < 1000, fault
        assert "hunter2" not in str(fault)
    if not faults:
        check_spec(text)


def check_spec(text):
    """The reader's promise about a text without fault."""
    spec = spec_of(text)
    well_typed(spec, Spec, "spec")
    for service in spec.services:
        assert all(0 <= endpoint.weight <= MAX_WEIGHT for endpoint in service.endpoints)
        assert all("\0" not in word for endpoint in service.endpoints for word in endpoint.run)
        assert 0 < service.health.timeout_ms <= service.health.interval_ms
        assert getattr(service.health.check, "body", None) is None or service.health.check.body.isprintable()
    for cluster in spec.clusters:
        nodes, durability = cluster.cluster.nodes, cluster.cluster.durability
        assert cluster.cluster.timers.faults() == ()
        assert len(nodes) > durability.acks or not durability.zero_loss
        assert any(node.priority for node in nodes)
        assert {node.host for node in nodes} <= set(spec.host_names)
        assert tuple(node.node for node in cluster.nodes) == nodes
    assert set(spec.router_hosts) <= set(spec.host_names)
    VALIDATOR.validate(parse(text, Report()))  # the schema never refuses what the reader accepts


def well_typed(value: Any, hint: Any, where: str) -> None:
    """Whether a value of the core is, all the way down, of the very type that its declaration promises."""
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = get_args(hint)
        assert type(value) in kinds, where
        well_typed(value, type(value), where)
    elif origin is tuple:
        inner = get_args(hint)
        hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        assert type(value) is tuple, where
        for one, kind in zip(value, hints, strict=True):
            well_typed(one, kind, where)
    else:
        assert type(value) is hint, (where, value)
        if issubclass(hint, Word):
            hint(str(value))
        elif hint is Address:
            assert Address.parse(str(value)) == value
        if dataclasses.is_dataclass(hint):
            for name, kind in get_type_hints(hint).items():
                well_typed(getattr(value, name), kind, f"{where}.{name}")


@FUZZ
@given(mutated_trees())
def test_no_structure_breaks_the_reader(text):
    """Values of every wrong kind in every place: a sound spec or plain faults."""
    check(text)


@FUZZ
@given(mutated_texts())
def test_no_bytes_break_the_reader(text):
    """Damaged text: a sound spec or plain faults."""
    check(text)


def test_the_fuzzers_start_is_sound():
    """The promise holds for the sample itself, so the mutations above are of a valid spec."""
    check_spec(FULL)
    check_spec(SEVERAL)
    assert all(len(known) > 50 for known in PLACES)


@pytest.mark.parametrize("which", range(len(TREES)))
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_unknown_fields_are_refused(which, data):
    """Whatever a section is given that it does not know is a fault at that very place, and the only one."""
    sections = [path for path in PLACES[which] if isinstance(at(TREES[which], path), dict) and path[-1] not in FREE]
    path = data.draw(st.sampled_from([(), *sections]))
    name = data.draw(st.text("qxz", min_size=6, max_size=9))
    tree = copy.deepcopy(TREES[which])
    at(tree, path)[name] = data.draw(st.sampled_from([1, "a", [], {}, True]))
    (fault,) = faults_of(json.dumps(tree, indent=1))
    assert fault.path == in_words((*path, name))
    assert "there is no field" in fault.text
