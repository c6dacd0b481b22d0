"""Who may log in to a stand-alone subscriber: e-mails and argon2 hashes in ``db.sqlite``.

The table is that of the older system, so that its users carry over, and rows may be added from outside at any
time. Tokens of people who log out or change their password are worth nothing from then on. HTTP is in
``login``; inside Jupyter none of this is used.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ..errors import ConfigError, ConflictError, NotFoundError, RequestError

__all__ = [
    "EmailError",
    "PasswordError",
    "UnknownUserError",
    "User",
    "UserLimitError",
    "UserStore",
    "check_new_password",
    "is_email",
]

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 1024  # argon2 reads all of it
# What would have to be quoted in a mail's header, and nobody's address has, is no part of one.
_EMAIL = re.compile(r"[^@\s<>()\[\]\\,;:\"]{1,64}@[^@\s<>()\\,;\"]{1,255}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (
    id CHAR(36) NOT NULL PRIMARY KEY,
    email VARCHAR(320) NOT NULL UNIQUE,
    hashed_password VARCHAR(1024) NOT NULL,
    is_active BOOLEAN NOT NULL,
    is_superuser BOOLEAN NOT NULL,
    is_verified BOOLEAN NOT NULL
);
CREATE TABLE IF NOT EXISTS self_registered (id CHAR(36) NOT NULL PRIMARY KEY);
CREATE TABLE IF NOT EXISTS revoked_token (id TEXT NOT NULL PRIMARY KEY, expires_at INTEGER NOT NULL);
"""
_COLUMNS = (
    "id, email, hashed_password, is_active, is_superuser, is_verified, "
    "EXISTS (SELECT 1 FROM self_registered WHERE self_registered.id = user.id)"
)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    Attributes
    ----------
    id : str
        A UUID, with dashes.
    email : str
    hashed_password : str
        PHC string of argon2id; never told to anybody.
    is_self_registered : bool
        Nobody who manages users has seen this e-mail.
    """

    id: str
    email: str
    hashed_password: str = field(repr=False)
    is_active: bool = True
    is_superuser: bool = False
    is_verified: bool = False
    is_self_registered: bool = False

    @property
    def owns_email(self) -> bool:
        """Was the e-mail given by somebody who manages users, or shown to be theirs by a mail that reached them?"""
        return self.is_verified or not self.is_self_registered

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "email": self.email,
            "is_active": self.is_active,
            "is_superuser": self.is_superuser,
            "is_verified": self.is_verified,
        }

    @property
    def password_tag(self) -> str:
        """Changes with the password, and tells nothing of it."""
        return hashlib.blake2b(self.hashed_password.encode(), digest_size=12).hexdigest()


class EmailError(RequestError):
    """It is not an e-mail."""


class PasswordError(RequestError):
    """It cannot be a password."""


class UserLimitError(RequestError):
    """There are as many users as there may be."""


class UnknownUserError(NotFoundError):
    """There is no such user."""


def is_email(text: str) -> bool:
    return _EMAIL.fullmatch(text) is not None and text.isprintable()


def check_new_password(password: str) -> None:
    """Refuse what cannot be a password.

    Raises
    ------
    PasswordError
    """
    if len(password) < MIN_PASSWORD_CHARS:
        raise PasswordError(f"Password should be at least {MIN_PASSWORD_CHARS} characters")
    if len(password) > MAX_PASSWORD_CHARS:
        raise PasswordError(f"Password should be at most {MAX_PASSWORD_CHARS} characters")


def _user(row: Sequence[object]) -> User:
    ident, email, hashed, *flags = row
    return User(str(ident), str(email), str(hashed), *map(bool, flags))


class UserStore:
    """The table of users. Thread safe.

    Parameters
    ----------
    path : Path
        The SQLite file; made, readable by its owner only, when it is not there.
    max_users : int, optional
        Most users that may be added.

    Raises
    ------
    ConfigError
        When the file cannot be used.

    Notes
    -----
    Hashing takes tens of milliseconds and megabytes: ``add`` and ``check_password`` belong in a thread. ``get``
    is one indexed read of a small file and may be called in the event loop.
    """

    def __init__(self, path: Path, max_users: int | None = None) -> None:
        self._path = path
        self._max_users = max_users
        self._hasher = PasswordHasher()
        self._lock = threading.Lock()
        # Verified in place of the hash of somebody who does not exist, so that the time tells nothing.
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cannot use the table of users {path}: {error}") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, email: str, password: str, *, is_superuser: bool = False, is_self_registered: bool = False) -> User:
        """Add a user.

        Raises
        ------
        EmailError, PasswordError
            When the e-mail or the password cannot be used.
        UserLimitError
        ConflictError
            When the e-mail is taken.
        """
        if not is_email(email):
            raise EmailError(f"not an e-mail address: {email[:100]!r}")
        check_new_password(password)
        user = User(
            str(uuid.uuid4()),
            email,
            self._hasher.hash(password),
            is_superuser=is_superuser,
            is_self_registered=is_self_registered,
        )
        with self._writing() as db:
            if db.execute("SELECT 1 FROM user WHERE lower(email) = lower(?)", (email,)).fetchone():
                raise ConflictError(f"user {email!r} exists already")
            (count,) = db.execute("SELECT count(*) FROM user").fetchone()
            if self._max_users is not None and count >= self._max_users:
                raise UserLimitError(f"Only a maximum of {self._max_users} users are allowed")
            db.execute(
                "INSERT INTO user (id, email, hashed_password, is_active, is_superuser, is_verified)"
                " VALUES (?, ?, ?, 1, ?, 0)",
                (user.id, email, user.hashed_password, is_superuser),
            )
            if is_self_registered:
                db.execute("INSERT INTO self_registered VALUES (?)", (user.id,))
        return user

    def remove(self, email: str) -> User:
        """Remove a user; the tokens end with it.

        Raises
        ------
        UnknownUserError
        """
        with self._writing() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM user WHERE lower(email) = lower(?)", (email,)).fetchone()  # noqa: S608
            if row is None:
                raise UnknownUserError(f"no user {email[:100]!r}")
            db.execute("DELETE FROM user WHERE id = ?", (row[0],))
            db.execute("DELETE FROM self_registered WHERE id = ?", (row[0],))
        return _user(row)

    def listed(self, email: str | None = None) -> list[User]:
        """All users, or the one of an e-mail, by e-mail."""
        condition, values = ("lower(email) = lower(?)", (email,)) if email is not None else ("1", ())
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM user WHERE {condition} ORDER BY email", values).fetchall()  # noqa: S608
        return [_user(row) for row in rows]

    def set_password(
        self, user_id: str, password: str, *, was_mailed: bool = False, old_tag: str | None = None
    ) -> bool:
        """Change a password; tokens given for the old one end with it.

        Parameters
        ----------
        was_mailed : bool
            By what was mailed to the user, whose e-mail it then is.
        old_tag : str, optional
            ``password_tag`` that the user has to have still.

        Returns
        -------
        bool
            Was it changed?

        Raises
        ------
        PasswordError
        """
        check_new_password(password)
        hashed = self._hasher.hash(password)
        with self._writing() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM user WHERE id = ? AND is_active", (user_id,)).fetchone()  # noqa: S608
            if row is None or (old_tag is not None and _user(row).password_tag != old_tag):
                return False
            db.execute(
                "UPDATE user SET hashed_password = ?, is_verified = is_verified OR ? WHERE id = ?",
                (hashed, was_mailed, user_id),
            )
        return True

    def check_password(self, email: str, password: str) -> User | None:
        """The active user of that e-mail, if that is the password."""
        user = self._find("lower(email) = lower(?)", email)
        hashed = user.hashed_password if user else self._nobody
        try:
            self._hasher.verify(hashed, password[: MAX_PASSWORD_CHARS + 1])
        except (VerificationError, InvalidHashError):
            return None
        return user if user and user.is_active else None

    def get(self, user_id: str) -> User | None:
        """The active user of that id."""
        user = self._find("id = ?", user_id)
        return user if user and user.is_active else None

    def revoke(self, token_id: str, expires_at: int, now: int) -> None:
        """Make a token worthless; those that are worthless by their age are forgotten."""
        with self._writing() as db:
            db.execute("DELETE FROM revoked_token WHERE expires_at < ?", (now,))
            db.execute("INSERT OR REPLACE INTO revoked_token VALUES (?, ?)", (token_id, expires_at))

    def is_revoked(self, token_id: str) -> bool:
        with self._lock:
            return self._db.execute("SELECT 1 FROM revoked_token WHERE id = ?", (token_id,)).fetchone() is not None

    def _find(self, condition: str, value: str) -> User | None:
        with self._lock:
            row = self._db.execute(f"SELECT {_COLUMNS} FROM user WHERE {condition}", (value,)).fetchone()  # noqa: S608
        return _user(row) if row else None

    def find(self, email: str) -> User | None:
        """The active user of that e-mail."""
        user = self._find("lower(email) = lower(?)", email)
        return user if user and user.is_active else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
