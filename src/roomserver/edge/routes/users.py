"""Accounts, as administrators see and change them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from roomserver.auth.accounts import InvalidEmailError
from roomserver.discreet import Discreet
from roomserver.edge.endpoints import Api, Call
from roomserver.edge.paging import PageQuery, cut_page
from roomserver.edge.problems import Problem, ProblemCode
from roomserver.edge.requests import NewAccountPassword, read_id, read_password
from roomserver.edge.routes.accounts import Email
from roomserver.store.interfaces import EmailTakenError
from roomserver.store.records import Account, AccountInvite, AuditEvent, Place

AccountRole = Literal["user", "admin"]
INVITE_S = 7 * 86_400
NO_SUCH = "there is nothing with that id"


class User(Struct, rename="camel"):
    """An account; times in Unix us, `disabledAt` null while it may log in."""

    user_id: str
    email: str
    role: AccountRole
    created_at: int
    disabled_at: int | None


class Users(Struct, rename="camel"):
    """Answer of `GET /api/admin/users`, newest first; `next` is null on the last page."""

    users: list[User]
    next: str | None


class CreateUserRequest(Discreet, rename="camel"):
    """Body of `POST /api/admin/users`."""

    email: Email
    password: NewAccountPassword
    role: AccountRole = "user"


class ChangeUserRequest(Struct, rename="camel"):
    """Body of `PATCH /api/admin/users/{user}`."""

    role: AccountRole


class InviteRequest(Struct, rename="camel"):
    """Body of `POST /api/admin/invites`; without an address the invite is for whoever has it."""

    email: Email | None = None
    role: AccountRole = "user"
    expires_in_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] = INVITE_S


class InviteAnswer(Struct, rename="camel"):
    """Its answer: the only time that the invite itself is told."""

    invite_id: str
    invite: str
    expires_at: int


class Invite(Struct, rename="camel"):
    """An invite; times in Unix us."""

    invite_id: str
    email: str | None
    role: AccountRole
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None
    used_by: str | None
    revoked_at: int | None


class Invites(Struct, rename="camel"):
    """Answer of `GET /api/admin/invites`, newest first; `next` is null on the last page."""

    invites: list[Invite]
    next: str | None


api = Api()


@api.get("/api/admin/users", admin=True)
async def list_users(call: Call, account: Account, query: PageQuery) -> Users:
    """Lists accounts, newest first."""
    store = call.services.accounts.store
    found = await store.list_accounts(after=query.after, limit=query.fetch)
    page, following = cut_page(query, found, lambda made: Place.of(made.created_at, made.id))
    return Users([_user(made) for made in page], following)


@api.post(
    "/api/admin/users",
    status=201,
    admin=True,
    problems=[ProblemCode.EMAIL_TAKEN, ProblemCode.BUSY],
)
async def create_user(call: Call, account: Account, body: CreateUserRequest) -> User:
    """Makes an account."""
    password = read_password(body.password)
    try:
        made = await call.services.accounts.add(body.email, password, body.role)
    except InvalidEmailError as error:
        raise Problem(ProblemCode.INVALID_REQUEST, str(error)) from None
    except EmailTakenError:
        raise Problem(
            ProblemCode.EMAIL_TAKEN, "there is an account with that address already"
        ) from None
    call.audit(AuditEvent.ACCOUNT_CREATED, account=made.id, role=made.role)
    return _user(made)


@api.patch("/api/admin/users/{user}", admin=True, problems=[ProblemCode.NOT_FOUND])
async def change_user(call: Call, account: Account, body: ChangeUserRequest) -> User:
    """Says whether an account may administer the server."""
    store = call.services.accounts.store
    user = _found(await store.set_role(_other(call, account), body.role))
    call.audit(AuditEvent.ACCOUNT_ROLE_CHANGED, account=user.user_id, role=body.role)
    return user


@api.post("/api/admin/users/{user}/disable", admin=True, problems=[ProblemCode.NOT_FOUND])
async def disable_user(call: Call, account: Account) -> User:
    """Shuts an account out: its sessions end and its rooms are closed at once."""
    user = _found(await call.services.accounts.set_disabled(_other(call, account), True))
    call.audit(AuditEvent.ACCOUNT_DISABLED, account=user.user_id)
    await call.services.owners.look()
    return user


@api.post("/api/admin/users/{user}/enable", admin=True, problems=[ProblemCode.NOT_FOUND])
async def enable_user(call: Call, account: Account) -> User:
    """Lets a disabled account in again; it has to log in."""
    user = _found(await call.services.accounts.set_disabled(_other(call, account), False))
    call.audit(AuditEvent.ACCOUNT_ENABLED, account=user.user_id)
    return user


@api.get("/api/admin/invites", admin=True)
async def list_account_invites(call: Call, account: Account, query: PageQuery) -> Invites:
    """Lists invites to make an account, newest first."""
    store = call.services.accounts.store
    found = await store.list_account_invites(after=query.after, limit=query.fetch)
    page, following = cut_page(query, found, lambda made: Place.of(made.created_at, made.id))
    return Invites([_invite(invite) for invite in page], following)


@api.post("/api/admin/invites", status=201, admin=True)
async def invite_account(call: Call, account: Account, body: InviteRequest) -> InviteAnswer:
    """Invites somebody to make one account."""
    try:
        invite, token = await call.services.accounts.invite(
            email=body.email, role=body.role, by=account, life_s=body.expires_in_s
        )
    except InvalidEmailError as error:
        raise Problem(ProblemCode.INVALID_REQUEST, str(error)) from None
    call.audit(AuditEvent.ACCOUNT_INVITED, invite=invite.id, email=invite.email, role=invite.role)
    return InviteAnswer(invite.id, token, _us(invite.expires_at))


@api.delete("/api/admin/invites/{invite}", admin=True, problems=[ProblemCode.NOT_FOUND])
async def revoke_account_invite(call: Call, account: Account) -> None:
    """Makes an invite worthless that was not used yet."""
    services = call.services
    invite = read_id(call.path("invite"), NO_SUCH)
    if not await services.accounts.revoke_invite(invite):
        raise _not_found()
    call.audit(AuditEvent.ACCOUNT_INVITE_REVOKED, invite=invite)


def _other(call: Call, account: Account) -> str:
    """The account that the path names. Raises Problem when it is the administrator's own.

    So there always is an administrator left.
    """
    user = read_id(call.path("user"), NO_SUCH)
    if user == account.id:
        raise Problem(ProblemCode.NOT_ALLOWED, "another administrator has to do that")
    return user


def _found(account: Account | None) -> User:
    if account is None:
        raise _not_found()
    return _user(account)


def _not_found() -> Problem:
    return Problem(ProblemCode.NOT_FOUND, NO_SUCH)


def _user(account: Account) -> User:
    disabled = account.disabled_at
    return User(
        account.id,
        account.email,
        account.role,
        _us(account.created_at),
        _us(disabled) if disabled is not None else None,
    )


def _invite(invite: AccountInvite) -> Invite:
    return Invite(
        invite_id=invite.id,
        email=invite.email,
        role=invite.role,
        created_by=invite.created_by,
        created_at=_us(invite.created_at),
        expires_at=_us(invite.expires_at),
        used_at=_us(invite.used_at) if invite.used_at is not None else None,
        used_by=invite.used_by,
        revoked_at=_us(invite.revoked_at) if invite.revoked_at is not None else None,
    )


def _us(unix_s: float) -> int:
    return round(unix_s * 1e6)
