"""Accounts: who broadcasts, and their sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from msgspec import Meta

from roomserver.auth.accounts import InvalidEmailError, StolenTokenError, check_email
from roomserver.auth.passwords import attempt_id
from roomserver.auth.tokens import TokenError
from roomserver.discreet import Discreet
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import NewAccountPassword, Password, read_password
from roomserver.edge.sessions import (
    SessionAnswer,
    check_cookie_origin,
    forget_cookie,
    hand_out,
    take_cookie,
)
from roomserver.store.interfaces import EmailTakenError, InviteRefusedError
from roomserver.store.records import Account, AuditEvent

Email = Annotated[str, Meta(min_length=1, max_length=254)]
Token = Annotated[str, Meta(min_length=1, max_length=512)]


class LoginRequest(Discreet, rename="camel"):
    """Body of `POST /auth/broadcaster`; with `cookie` the refresh token comes in one."""

    email: Email
    password: Password
    cookie: bool = False


class RegisterRequest(Discreet, rename="camel"):
    """Body of `POST /auth/register`."""

    email: Email
    password: NewAccountPassword
    invite: Token | None = None
    cookie: bool = False


class RefreshRequest(Discreet, rename="camel"):
    """Body of `POST /auth/refresh` and `POST /auth/logout`; without a token the cookie counts."""

    refresh_token: Token | None = None


class PasswordRequest(Discreet, rename="camel"):
    """Body of `POST /auth/password`."""

    old_password: Password
    new_password: NewAccountPassword
    cookie: bool = False


api = Api()

LOGIN_PROBLEMS = (
    ProblemCode.INVALID_CREDENTIALS,
    ProblemCode.RATE_LIMITED,
    ProblemCode.BUSY,
    ProblemCode.ORIGIN_NOT_ALLOWED,
    ProblemCode.DATABASE_AWAY,
)


@api.post("/auth/broadcaster", problems=LOGIN_PROBLEMS)
async def login(call: Call, body: LoginRequest) -> SessionAnswer:
    """Logs a broadcaster in."""
    password = read_password(body.password)
    if body.cookie:
        check_cookie_origin(call)
    async with _guess(call, body.email.strip(), password) as failed:
        session = await call.services.accounts.login(body.email, password, asker=call.limit_key)
        if session is None:
            await failed()
    if session is None:
        raise Problem(
            ProblemCode.INVALID_CREDENTIALS, "e-mail address or password is wrong"
        ).audited(AuditEvent.LOGIN_FAILURE, email=_loggable(body.email))
    call.audit(AuditEvent.LOGIN_SUCCESS, user=session.account.id)
    return hand_out(call, session, cookie=body.cookie)


@api.post(
    "/auth/register",
    status=201,
    problems=[
        ProblemCode.REGISTRATION_CLOSED,
        ProblemCode.ACCOUNT_INVITE_REFUSED,
        ProblemCode.EMAIL_TAKEN,
        ProblemCode.RATE_LIMITED,
        ProblemCode.BUSY,
        ProblemCode.ORIGIN_NOT_ALLOWED,
        ProblemCode.DATABASE_AWAY,
    ],
)
async def register(call: Call, body: RegisterRequest) -> SessionAnswer:
    """Makes an account for whoever asks, or for those who were invited, and logs it in."""
    services = call.services
    if services.registration == "closed":
        raise Problem(ProblemCode.REGISTRATION_CLOSED, "accounts are made by administrators here")
    if services.registration == "invite" and body.invite is None:
        raise Problem(ProblemCode.ACCOUNT_INVITE_REFUSED, "an invite is needed")
    password = read_password(body.password)
    if body.cookie:
        check_cookie_origin(call)
    async with call.limited(services.limits.register, call.limit_key) as attempt:
        attempt.count()
        try:
            session = await services.accounts.register(body.email, password, invite=body.invite)
        except InvalidEmailError as error:
            raise Problem(ProblemCode.INVALID_REQUEST, str(error)) from None
        except InviteRefusedError:
            raise Problem(
                ProblemCode.ACCOUNT_INVITE_REFUSED,
                "the invite is not valid, was used, has expired, or is for another address",
            ) from None
        except EmailTakenError:
            raise Problem(
                ProblemCode.EMAIL_TAKEN, "there is an account with that address already"
            ) from None
    call.audit(
        AuditEvent.ACCOUNT_CREATED,
        user=session.account.id,
        role=session.account.role,
        invited=body.invite is not None,
    )
    return hand_out(call, session, cookie=body.cookie)


@api.post(
    "/auth/refresh",
    problems=[
        ProblemCode.TOKEN_INVALID,
        ProblemCode.ORIGIN_NOT_ALLOWED,
        ProblemCode.RATE_LIMITED,
        ProblemCode.DATABASE_AWAY,
    ],
)
async def refresh(call: Call, body: RefreshRequest) -> SessionAnswer:
    """Exchanges a refresh token for an access token and the refresh token that comes after it."""
    services = call.services
    presented = body.refresh_token or take_cookie(call)
    cookie = body.refresh_token is None
    async with call.limited(services.limits.refresh, call.limit_key) as attempt:
        attempt.count()
        try:
            if presented is None:
                raise TokenError("a refresh token is needed")
            session = await services.accounts.refresh(presented)
        except TokenError as error:
            if cookie:
                forget_cookie(call)
            problem = Problem(ProblemCode.TOKEN_INVALID, str(error))
            if isinstance(error, StolenTokenError):
                problem.audited(AuditEvent.TOKEN_THEFT, user=error.account.id)
            raise problem from None
    call.audit(AuditEvent.TOKEN_REFRESH, user=session.account.id)
    return hand_out(call, session, cookie=cookie)


@api.post("/auth/logout", problems=[ProblemCode.ORIGIN_NOT_ALLOWED, ProblemCode.DATABASE_AWAY])
async def logout(call: Call, body: RefreshRequest) -> None:
    """Ends the session that a refresh token belongs to; an unknown one is no error."""
    presented = body.refresh_token or take_cookie(call)
    if presented is not None:
        account = await call.services.accounts.logout(presented)
        if account is not None:
            call.audit(AuditEvent.LOGOUT, user=account)
    if body.refresh_token is None:
        forget_cookie(call)  # not before: without it nobody could end the session any more


@api.post("/auth/password", problems=LOGIN_PROBLEMS)
async def change_password(call: Call, account: Account, body: PasswordRequest) -> SessionAnswer:
    """Gives an account another password, which ends every session but the one that this begins."""
    old, new = read_password(body.old_password), read_password(body.new_password)
    if body.cookie:
        check_cookie_origin(call)
    # Who has got hold of an access token may not guess any faster than who has not.
    async with _guess(call, account.email, old) as failed:
        session = await call.services.accounts.change_password(account, old, new)
        if session is None:
            await failed()
            raise Problem(ProblemCode.INVALID_CREDENTIALS, "the old password is wrong").audited(
                AuditEvent.LOGIN_FAILURE
            )
    call.audit(AuditEvent.PASSWORD_CHANGED)
    return hand_out(call, session, cookie=body.cookie)


@asynccontextmanager
async def _guess(
    call: Call, email: str, password: bytes
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Somebody says an account's password; call what it gives when that was wrong.

    Raises Problem (429).
    """
    limits = call.services.limits
    account = email.casefold()
    same = attempt_id(account, password)
    async with (
        call.limited(limits.login_address, call.limit_key, same=same, quiet=True) as of_address,
        call.limited(limits.login, account, call.limit_key, same=same) as of_account,
    ):
        await limits.login_brake.wait(account)

        async def failed() -> None:
            of_address.count()
            of_account.count()
            await limits.login_brake.failed(account)

        yield failed


def _loggable(email: str) -> str | None:
    """The address if it is one: people type passwords into the wrong field."""
    try:
        return check_email(email)
    except InvalidEmailError:
        return None
