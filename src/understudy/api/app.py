"""The routes of the HTTP API under /api/v1, and /metrics: each hands one question or verb to the operator.

No decisions and no second set of values here: what goes out are the view model's own frozen values.
"""

import asyncio
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from understudy.api.gate import Gate
from understudy.api.metrics import CONTENT_TYPE, exposition
from understudy.api.stream import journal_stream
from understudy.control.view import Foretold, JournalEntry, Operator, Progress, SpecChange, Status, Version, Wish
from understudy.core.errors import Fault, Refused
from understudy.core.model import MAX_WEIGHT
from understudy.core.pools import Admin
from understudy.core.record import RequestKind

EVENTS_MAX = 1000
Name48 = Annotated[str, Field(max_length=48)]


class Body(BaseModel):
    """What may be sent: exactly the fields that are named, of exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AdminOrder(Body):
    """What an operator wants of an endpoint."""

    admin: Annotated[Admin, Field(strict=False)]


class WeightOrder(Body):
    """The weight that an endpoint is to have from now on."""

    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)]


class WishOrder(Body):
    """What a person asks of a cluster: `failover`, `switchover`, `pause`, `resume` or `rebuild`."""

    kind: Annotated[RequestKind, Field(strict=False)]
    node: Name48 | None = None
    """Whom to switch over to (none: the best), or to rebuild."""
    accept_loss: bool = False
    """failover: promote the best that is left, whatever it lacks; rebuild: even where no copy of the old data fits."""
    sworn_dead: list[Name48] = Field(default_factory=list)
    """failover: the machines of these nodes are off; a person has looked."""


class Nothing(Body):
    """A verb that needs no more than its address; send {}."""


class SpecText(Body):
    """A spec: the text of the YAML file."""

    text: str


class RollbackOrder(Body):
    """The version to go back to; none means the one before the present one."""

    to_version: Annotated[int, Field(ge=1)] | None = None


class Reason(BaseModel):
    """One sentence: what was done and why, or what was not done, why, and what to do next."""

    reason: str


class Reasons(BaseModel):
    """Why a service is as it is, the most important reason first."""

    service: str
    reasons: tuple[str, ...]


def create_app(operator: Operator) -> FastAPI:
    """The application that asks this operator; it needs no start-up of its own."""
    agent_version = version("understudy")
    app = FastAPI(
        title="understudy",
        version=agent_version,
        summary="What the agent sees, and what an operator may ask of it.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these pages would load scripts of others
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.closing = asyncio.Event()
    app.add_middleware(Gate)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_unforeseen)
    refusals = _Refusals(operator)
    app.add_exception_handler(Refused, refusals.answer)
    app.include_router(_reading(operator))
    app.include_router(_verbs(operator))

    @app.get(
        "/metrics",
        tags=["seeing"],
        response_class=PlainTextResponse,
        responses={200: {"description": "Prometheus' text format, version 0.0.4."}, **_refused(503)},
    )
    async def metrics() -> StreamingResponse:
        """The same facts for Prometheus."""
        return StreamingResponse(exposition(await operator.status(), agent_version), media_type=CONTENT_TYPE)

    return app


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its description."""
    meaning = {
        404: "There is no such service or endpoint.",
        409: "Refused; the reason says why and what to do.",
        422: "The request does not say what is needed.",
        503: "Something outside the agent failed; the reason says what.",
    }
    return {status: {"model": Reason, "description": meaning[status]} for status in statuses}


def _reading(operator: Operator) -> APIRouter:
    """The routes that change nothing."""
    router = APIRouter(prefix="/api/v1", tags=["seeing"])

    @router.get("/status", responses=_refused(503))
    async def status() -> Status:
        """Everything, now."""
        return await operator.status()

    @router.get("/services/{service}/why", responses=_refused(404, 503))
    async def why(service: str) -> Reasons:
        """Why the service is as it is."""
        return Reasons(service=service, reasons=await operator.why(service))

    @router.get("/what-if/{node}", responses=_refused(409, 503))
    async def what_if(node: str, service: str | None = None) -> tuple[Foretold, ...]:
        """What would happen if this node's engine died now, and if its machine were lost."""
        return await operator.what_if(node, service)

    @router.get("/services/{service}/endpoints/{endpoint}/drain", responses=_refused(404, 409, 503))
    async def progress(service: str, endpoint: str) -> Progress:
        """How far a drain has come, and whether the endpoint may be stopped now."""
        return await operator.progress(service, endpoint)

    @router.get("/events", responses=_refused(422, 503))
    async def events(
        after: Annotated[int, Query(ge=-1, description="Number after which to begin; -1 for the newest.")] = -1,
        limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = 100,
        service: str | None = None,
    ) -> tuple[JournalEntry, ...]:
        """Entries of the journal, oldest first."""
        return tuple(JournalEntry.of(entry) for entry in await operator.events(after, limit, service))

    @router.get("/events/{number}/decision", responses=_refused(409, 503))
    async def decision(number: int) -> tuple[JournalEntry, ...]:
        """All entries of the failover that this one belongs to: evidence, candidates and refusals, timings, loss."""
        return tuple(JournalEntry.of(entry) for entry in await operator.decision(number))

    @router.get(
        "/events/stream",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "An entry as JSON in each event's data."}
        },
    )
    async def stream(
        request: Request,
        after: Annotated[int, Query(ge=0)] = 0,
        service: str | None = None,
        last_event_id: Annotated[int | None, Header()] = None,
    ) -> StreamingResponse:
        """Entries of the journal above `after` (or above the header Last-Event-ID), as they come."""
        begin = after if last_event_id is None else last_event_id
        entries = journal_stream(operator, begin, service, request.app.state.closing)
        return StreamingResponse(entries, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @router.get("/versions", responses=_refused(503))
    async def versions() -> tuple[Version, ...]:
        """The versions of the spec in the store, newest first."""
        return await operator.versions()

    return router


def _verbs(operator: Operator) -> APIRouter:
    """The routes that change something."""
    router = APIRouter(prefix="/api/v1", tags=["verbs"], responses=_refused(409, 422, 503))

    @router.post("/services/{service}/endpoints/{endpoint}/admin", responses=_refused(404))
    async def set_admin(service: str, endpoint: str, order: AdminOrder) -> Reason:
        """Order `ready`, `drain` or `maint`."""
        return Reason(reason=await operator.set_admin(service, endpoint, order.admin))

    @router.post("/services/{service}/endpoints/{endpoint}/weight", responses=_refused(404))
    async def set_weight(service: str, endpoint: str, order: WeightOrder) -> Reason:
        """Set the weight, until an `apply` changes it in the spec."""
        return Reason(reason=await operator.set_weight(service, endpoint, order.weight))

    @router.post("/services/{service}/failover", responses=_refused(404))
    async def failover(service: str, _order: Nothing) -> Reason:
        """Move a pool's traffic to its backup group; let another node of a cluster take over."""
        return Reason(reason=await operator.failover(service))

    @router.post("/services/{service}/wishes", responses=_refused(404))
    async def ask(service: str, order: WishOrder) -> Reason:
        """Ask something of a cluster, and wait for what comes of it."""
        wish = Wish(order.kind, order.node, order.accept_loss, tuple(order.sworn_dead))
        return Reason(reason=await operator.ask(service, wish))

    @router.post("/services/{service}/failback", responses=_refused(404))
    async def failback(service: str, _order: Nothing) -> Reason:
        """Move the service's traffic back to its primary group."""
        return Reason(reason=await operator.failback(service))

    @router.post("/plan")
    async def plan(spec: SpecText) -> SpecChange:
        """What applying this spec would do; changes nothing."""
        return await operator.plan(spec.text)

    @router.post("/apply")
    async def apply(spec: SpecText) -> SpecChange:
        """Make this spec the one in force."""
        return await operator.apply(spec.text)

    @router.post("/rollback")
    async def rollback(order: RollbackOrder) -> SpecChange:
        """Apply an earlier version again."""
        return await operator.rollback(order.to_version)

    return router


class _Refusals:
    """Turns the operator's refusals into answers: 404 for what is not there, 503 for a fault outside, else 409."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator

    async def answer(self, request: Request, refusal: Exception) -> Response:
        """The sentence of the refusal, with the HTTP status that fits."""
        status = 404 if await self._unknown(request.path_params) else 503 if isinstance(refusal, Fault) else 409
        return JSONResponse({"reason": str(refusal)}, status)

    async def _unknown(self, params: dict[str, str]) -> bool:
        """Whether the address of the request names a service or endpoint that is not there."""
        if "service" not in params:
            return False
        try:
            status = await self.operator.status()
        except Refused:
            return False
        if any(each.name == params["service"] for each in status.clusters):
            return "endpoint" in params
        service = next((each for each in status.services if each.name == params["service"]), None)
        if service is None or "endpoint" not in params:
            return service is None
        return all(each.name != params["endpoint"] for each in service.endpoints)


async def _answer_http(request: Request, failure: Exception) -> Response:
    """No such route, or a method that it does not have."""
    status = failure.status_code if isinstance(failure, HTTPException) else 500
    reason = f"{request.method} {request.url.path} is not part of this API: /api/v1/openapi.json lists what is"
    return JSONResponse({"reason": reason}, status)


async def _answer_invalid(_request: Request, failure: Exception) -> Response:
    """Every fault of the request in one sentence."""
    faults = failure.errors() if isinstance(failure, RequestValidationError) else []
    told = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
    return JSONResponse({"reason": f"the request does not say what is needed: {'; '.join(told)}"}, 422)


async def _answer_unforeseen(_request: Request, _failure: Exception) -> Response:
    """An error of ours: details go to the log (the server sees to that), not to the client."""
    return JSONResponse({"reason": "the agent met an error that nobody foresaw: its log tells the details"}, 500)
