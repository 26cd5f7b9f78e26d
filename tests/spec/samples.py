"""The specs that the tests of this folder begin with, and how they read them."""

from pathlib import Path

from understudy.core.model import Spec
from understudy.spec import SpecFault, SpecFaults, read

FULL = (Path(__file__).parent / "full.yaml").read_text()
SEVERAL = (Path(__file__).parent / "several.yaml").read_text()
EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {"SHOP_PASSWORD_NOW": "hunter2"}

SMALL = """\
cluster: shop
services:
  web:
    kind: http
    listen: 127.0.0.1:8080
    endpoints:
      - {name: w1, address: 10.0.0.1:9001}
      - {name: w2, address: 10.0.0.1:9002}
"""

ORDERS = """\
cluster: shop
services:
  orders:
    kind: postgres
    listen: {write: 127.0.0.1:7432, read: 127.0.0.1:7433}
    nodes:
      - {name: a, address: 127.0.0.1:7441, data: orders/a}
      - {name: b, address: 127.0.0.1:7442, data: orders/b}
"""


def spec_of(text: str, directory: str = ".") -> Spec:
    """The spec, which must be without fault."""
    return read(text, directory, ENVIRONMENT)


def faults_of(text: str, directory: str = ".") -> tuple[SpecFault, ...]:
    """What is wrong with it; nothing when it is read."""
    try:
        spec_of(text, directory)
    except SpecFaults as refused:
        return refused.faults
    return ()
