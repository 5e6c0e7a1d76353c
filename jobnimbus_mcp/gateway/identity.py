"""Who is asking JobNimbus: account and credential from headers, and the partition of the cache that belongs to both."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobnimbus_mcp.errors import InvalidInput, NotAllowed, NotAuthenticated, SettingsError
from jobnimbus_mcp.gateway.access import EVERYTHING, Access

__all__ = ["API_KEY_HEADER", "INSTANCE_HEADER", "Caller", "Identities", "Partitions"]

API_KEY_HEADER = "X-JobNimbus-Api-Key"
INSTANCE_HEADER = "X-JobNimbus-Instance"
_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}")
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Caller:
    """An account and the credential to ask it with. The credential goes to JobNimbus and nowhere else.

    `bearer`: the credential's own digest, which says whose acceptance counts where keys share a partition; "" where
    the partition is this credential's alone. `access`: what the token it came in with allows.
    """

    instance: str
    credential: str = field(repr=False)
    partition: str
    own_key: bool
    bearer: str = ""
    access: Access = EVERYTHING


class Partitions:
    """Credential -> partition: a digest that cannot be turned round, so that keys of the cache tell nothing.

    With a secret the digest is an HMAC, without one a hash with a fixed prefix. `shared` lists groups of digests
    joined by `+`: keys known to have the same access profile, which then share what they cached. Such a partition has a
    digest of its own, since none of the keys must take it with it when it is refused.
    """

    def __init__(self, secret: str | None = None, shared: Sequence[str] = ()) -> None:
        self._secret = secret.encode() if secret else None
        self._group_of: dict[str, str] = {}
        for group in shared:
            digests = [digest.strip() for digest in group.split("+")]
            if len(digests) < 2 or not all(_DIGEST.fullmatch(digest) for digest in digests):
                raise SettingsError(
                    "JOBNIMBUS_SHARED_PARTITIONS: write groups of digests as `jobnimbus-mcp doctor` prints them, "
                    "joined by +, groups separated by commas"
                )
            text = "jobnimbus-mcp shared partition\0" + "+".join(sorted(digests))
            self._group_of |= dict.fromkeys(digests, hashlib.sha256(text.encode()).hexdigest()[:32])

    def digest(self, instance: str, credential: str) -> str:
        """32 hex digits for this credential of this account; what doctor prints."""
        text = f"{instance}\0{credential}".encode()
        if self._secret is None:
            return hashlib.sha256(b"jobnimbus-mcp partition\0" + text).hexdigest()[:32]
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]

    def of(self, instance: str, credential: str) -> str:
        """The partition this credential reads and fills."""
        return self.shared_by(self.digest(instance, credential))

    def shared_by(self, digest: str) -> str:
        """The partition of the credential with this digest."""
        return self._group_of.get(digest, digest)


class Identities:
    """From two header values to a `Caller`; the caller's own key wins over the server's."""

    def __init__(self, instances: Sequence[str], server_keys: Mapping[str, str], partitions: Partitions) -> None:
        self._instances = tuple(instances)
        self._server_keys = dict(server_keys)
        self._partitions = partitions

    @property
    def instances(self) -> tuple[str, ...]:
        return self._instances

    def instance(self, named: str | None) -> str:
        """The account meant by a header or parameter.

        Raises:
            InvalidInput: unknown, or left out where several accounts are configured.
        """
        if named is None:
            if len(self._instances) == 1:
                return self._instances[0]
            raise InvalidInput(
                f"Several accounts are served here: say which one in the {INSTANCE_HEADER} header.",
                field=INSTANCE_HEADER,
            )
        if named not in self._instances:
            raise InvalidInput(
                f"No account of that name is served here; check the {INSTANCE_HEADER} header.", field=INSTANCE_HEADER
            )
        return named

    def identify(self, api_key: str | None, instance: str | None, access: Access = EVERYTHING) -> Caller:
        """The caller behind the two header values (None where a header was not sent).

        Raises:
            InvalidInput: a malformed key, an unknown account, or none named where several are configured.
            NotAllowed: the token is not for this account.
            NotAuthenticated: no key given, and this server holds none for the account.
        """
        if instance is None and access.instances is not None and len(access.instances) == 1:
            instance = next(iter(access.instances))  # there is only one that can be meant
        account = self.instance(instance)
        if not access.allows_instance(account):
            raise NotAllowed("The token sent is not for this account.", code="instance_not_allowed")
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise InvalidInput(
                f"{API_KEY_HEADER} must be 16 to 256 letters, digits, hyphens or underscores.", field=API_KEY_HEADER
            )
        credential = api_key if api_key is not None else self._server_keys.get(account)
        if credential is None:
            raise NotAuthenticated(
                f"This server holds no JobNimbus key: send yours in the {API_KEY_HEADER} header.",
                code="missing_credential",
                field=API_KEY_HEADER,
            )
        return self._caller(account, credential, own_key=api_key is not None, access=access)

    def server_caller(self, instance: str) -> Caller | None:
        """The server's own credential for an account, or None when it holds none."""
        key = self._server_keys.get(instance)
        return None if key is None else self._caller(instance, key, own_key=False)

    def _caller(self, instance: str, credential: str, *, own_key: bool, access: Access = EVERYTHING) -> Caller:
        bearer = self._partitions.digest(instance, credential)
        return Caller(instance, credential, self._partitions.shared_by(bearer), own_key, bearer, access)
