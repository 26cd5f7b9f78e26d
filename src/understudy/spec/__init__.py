"""From a YAML file to the core's values, all faults at once; and the schema for editors. The way in is `read`."""

from understudy.spec.faults import SpecFault, SpecFaults
from understudy.spec.reader import read, text_of
from understudy.spec.schema import schema

__all__ = ["SpecFault", "SpecFaults", "read", "schema", "text_of"]
