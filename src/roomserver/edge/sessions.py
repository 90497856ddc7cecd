"""The refresh token on its way: in a cookie for browsers, in the JSON body for everyone else.

A page can't read the cookie, so that a script that was smuggled into it steals no session, and the
browser sends it to `/auth` alone. Because the browser sends it by itself, whoever has it has to say
where from: no page of another origin may use it.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from roomserver.auth.accounts import Session
from roomserver.edge.endpoints import Call
from roomserver.edge.problems import Problem, ProblemCode

COOKIE = "refresh_token"
COOKIE_PATH = "/auth"


class SessionAnswer(Struct, rename="camel"):
    """A session: `refreshToken` is missing where it went into the cookie."""

    access_token: str
    refresh_token: str | UnsetType = UNSET


def hand_out(call: Call, session: Session, *, cookie: bool) -> SessionAnswer:
    """The answer that gives a session to a client."""
    if not cookie:
        return SessionAnswer(session.access_token, session.refresh_token)
    life_s = round(call.services.accounts.refresh_s)
    call.on_answer.append(
        lambda answer: answer.set_cookie(
            COOKIE,
            session.refresh_token,
            max_age=life_s,
            path=COOKIE_PATH,
            secure=True,
            httponly=True,
            samesite="Strict",
        )
    )
    return SessionAnswer(session.access_token)


def take_cookie(call: Call) -> str | None:
    """The refresh token that the browser holds. Raises Problem (403)."""
    token = call.request.cookies.get(COOKIE)
    if token is not None:
        check_cookie_origin(call)
    return token


def forget_cookie(call: Call) -> None:
    """The browser holds nothing any more."""
    call.on_answer.append(
        lambda answer: answer.del_cookie(
            COOKIE, path=COOKIE_PATH, secure=True, httponly=True, samesite="Strict"
        )
    )


def check_cookie_origin(call: Call) -> None:
    """A page of ours, or of an origin that is named, says so. Raises Problem (403)."""
    if not call.services.origins.admits_cookie(call.request):
        raise Problem(
            ProblemCode.ORIGIN_NOT_ALLOWED, "the cookie is for pages of this server's origins"
        )
