"""How fast and how cheap: live changes among thousands of servers. The bounds are generous, the figures recorded."""

import asyncio
import time
from dataclasses import replace

from tests.routing import HOST, Backend, desired, free_ports, running, service, short_directory

from understudy.core.model import Endpoint, HealthPolicy
from understudy.core.text import Address, Name
from understudy.router import runtime
from understudy.router.layout import Layout

SERVICES, ENDPOINTS, CHANGES = 200, 10, 100
QUIET = HealthPolicy(interval_ms=5_000, timeout_ms=1_000, slow_start_ms=0)


async def test_one_weight_among_thousands_is_live_in_moments(record_property):
    """2 000 servers, looked at all the while: each weight is live when `apply` returns, nine of ten within 0.25 s."""
    backend = Backend("w", free_ports(1)[0])
    await backend.start()
    ports = free_ports(SERVICES)
    services = [
        replace(
            service(f"s{number}", port, []),
            health=QUIET,
            endpoints=tuple(Endpoint(Name(f"w{n}"), Address(HOST, backend.port)) for n in range(ENDPOINTS)),
        )
        for number, port in enumerate(ports)
    ]
    records: dict = {}
    took_ms: list[float] = []
    with short_directory() as directory:
        async with running(directory, desired(*services, records=records)) as router:

            async def look() -> None:
                while True:
                    await router.observe()
                    await asyncio.sleep(0.2)

            looking = asyncio.create_task(look())
            for change in range(CHANGES):
                chosen = services[change * 7 % SERVICES]
                weight = 2 + change
                record = replace(records[chosen.name], weights=((Name("w3"), weight),))
                wanted = _with(router._state, chosen, record)
                began = time.perf_counter()
                done = await router.apply(wanted)
                took_ms.append((time.perf_counter() - began) * 1000)
                assert len(done.live) == 1
                assert not done.reload
                told = await runtime.ask(Layout(directory).admin_socket, f"get weight {chosen.name}.primary/s4")
                assert told.startswith(f"{weight} ")
                await asyncio.sleep(0.01)
            looking.cancel()
            cost_s = (await router.observe()).cost_s
    await backend.stop()
    took_ms.sort()
    record_property("weight_change_p50_ms", round(took_ms[CHANGES // 2], 1))
    record_property("weight_change_p99_ms", round(took_ms[-2], 1))
    record_property("look_cost_ms", round(cost_s * 1000))
    assert took_ms[CHANGES * 9 // 10] < 250


def _with(state, chosen, record):
    """The state with one route compiled anew, as the agent's compile leaves all others untouched."""
    from understudy.core.routes import compile_route

    routes = tuple(compile_route(chosen, record) if route.service == chosen.name else route for route in state.routes)
    return replace(state, routes=routes)
