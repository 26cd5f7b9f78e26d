"""The published schema and the reader agree as far as a schema can tell."""

import json

import jsonschema
import pytest
from tests.spec.mistakes import CLUSTER_MISFITS, MISFITS
from tests.spec.samples import EXAMPLES, FULL, ORDERS, SEVERAL, SMALL

from understudy.spec import schema
from understudy.spec.document import parse
from understudy.spec.faults import Report

VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_it_is_a_schema_that_explains_every_field():
    """The schema is valid itself, can be written as JSON, and every field has a description."""
    jsonschema.Draft202012Validator.check_schema(schema())
    json.dumps(schema())
    shapes = [schema(), *schema()["$defs"].values()]
    fields = {name: field for shape in shapes for name, field in shape.get("properties", {}).items()}
    assert len(fields) > 40
    assert [name for name, field in fields.items() if not {"description", "$ref"} & field.keys()] == []


@pytest.mark.parametrize(
    "text", [FULL, SEVERAL, SMALL, ORDERS, *(path.read_text() for path in EXAMPLES.glob("*.yaml"))]
)
def test_what_is_right_is_right_for_both(text):
    """What the reader accepts (test_read.py) pleases the schema too."""
    VALIDATOR.validate(parse(text, Report()))


def test_defaults_in_the_schema_are_right():
    """Every default that an editor may fill in is a right value by the schema itself."""
    shapes = [schema(), *schema()["$defs"].values()]
    defaults = [
        (shape, name) for shape in shapes for name, field in shape.get("properties", {}).items() if "default" in field
    ]
    assert len(defaults) > 20
    for shape, name in defaults:
        field = shape["properties"][name]
        assert VALIDATOR.evolve(schema={**field, "$defs": schema()["$defs"]}).is_valid(field["default"]), name


WRONG = [SMALL.replace(old, new, 1) for old, new, _, _ in MISFITS]
WRONG += [ORDERS.replace(old, new, 1) for old, new, _, _ in CLUSTER_MISFITS]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_one_field_is_wrong_for_both(text):
    """Whatever can be told from one field alone, an editor marks too."""
    assert not VALIDATOR.is_valid(parse(text, Report()))
