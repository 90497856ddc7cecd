"""Accounts: who broadcasts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from roomserver.auth.accounts import InvalidEmailError, check_email
from roomserver.auth.passwords import attempt_id
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import Password, read_password
from roomserver.store.records import AuditEvent


class LoginRequest(Struct, rename="camel"):
    """Body of `POST /auth/broadcaster`."""

    email: Annotated[str, Meta(min_length=1, max_length=254)]
    password: Password


class LoginAnswer(Struct, rename="camel"):
    """Its answer."""

    access_token: str
    refresh_token: str


api = Api()


@api.post(
    "/auth/broadcaster",
    problems=[ProblemCode.INVALID_CREDENTIALS, ProblemCode.RATE_LIMITED, ProblemCode.BUSY],
)
async def login(call: Call, body: LoginRequest) -> LoginAnswer:
    """Logs a broadcaster in."""
    services = call.services
    password = read_password(body.password)
    limits = services.limits
    account = body.email.strip().casefold()
    same = attempt_id(account, password)
    async with call.limited(limits.login, account, call.limit_key, same=same) as attempt:
        await limits.login_brake.wait(account)
        session = await services.accounts.login(body.email, password)
        if session is None:
            attempt.count()
            await limits.login_brake.failed(account)
    if session is None:
        raise Problem(
            ProblemCode.INVALID_CREDENTIALS, "e-mail address or password is wrong"
        ).audited(AuditEvent.LOGIN_FAILURE, email=_loggable(body.email))
    call.audit(AuditEvent.LOGIN_SUCCESS, user=session.account.id)
    return LoginAnswer(session.access_token, session.refresh_token)


def _loggable(email: str) -> str | None:
    """The address if it is one: people type passwords into the wrong field."""
    try:
        return check_email(email)
    except InvalidEmailError:
        return None
