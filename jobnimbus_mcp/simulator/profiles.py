"""Who a call is made as: the profile of its key, and the team member it names as its actor."""

from __future__ import annotations

from dataclasses import dataclass

from jobnimbus_mcp.simulator.account import Account

__all__ = ["Profile", "acting_as"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a key may do. `viewer`: the user whose records alone are visible; None: all are. `may_set`: whether it may
    add to the account's settings. `author`: the user whose name is to stand on what is written; None: the key's own
    `user`, and on new records only."""

    instance: str
    user: str
    viewer: str | None
    may_set: bool
    author: str | None = None


def acting_as(profile: Profile, email: str | None, account: Account) -> Profile:
    """The profile of a call that names an actor by e-mail: a key that sees everything becomes that team member. One
    nobody has, or that of somebody who left, is ignored, and so is any on a key with a narrower profile.

    Source: JobNimbus API documentation, acting user; what an unknown e-mail does is not on record.
    """
    if not email or profile.viewer is not None:
        return profile
    user = account.user_by_email(email)
    if user is None:
        return profile
    viewer = user.id if user.role == "rep" else None
    return Profile(profile.instance, user.id, viewer, may_set=user.role == "admin", author=user.id)
