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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ..errors import ConfigError, ConflictError, RequestError

__all__ = ["User", "UserStore"]

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 1024  # argon2 reads all of it
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS user (
    id CHAR(36) NOT NULL PRIMARY KEY,
    email VARCHAR(320) NOT NULL UNIQUE,
    hashed_password VARCHAR(1024) NOT NULL,
    is_active BOOLEAN NOT NULL,
    is_superuser BOOLEAN NOT NULL,
    is_verified BOOLEAN NOT NULL
);
CREATE TABLE IF NOT EXISTS revoked_token (id TEXT NOT NULL PRIMARY KEY, expires_at INTEGER NOT NULL);
"""
_COLUMNS = "id, email, hashed_password, is_active, is_superuser"


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
    """

    id: str
    email: str
    hashed_password: str = field(repr=False)
    is_active: bool = True
    is_superuser: bool = False

    @property
    def password_tag(self) -> str:
        """Changes with the password, and tells nothing of it."""
        return hashlib.blake2b(self.hashed_password.encode(), digest_size=12).hexdigest()


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

    def add(self, email: str, password: str, *, is_superuser: bool = False) -> User:
        """Add a user.

        Raises
        ------
        RequestError
            When the e-mail or the password cannot be used, or the limit is reached.
        ConflictError
            When the e-mail is taken.
        """
        if not _EMAIL.fullmatch(email):
            raise RequestError(f"not an e-mail address: {email[:100]!r}")
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise RequestError(f"a password needs {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters")
        user = User(str(uuid.uuid4()), email, self._hasher.hash(password), is_superuser=is_superuser)
        with self._writing() as db:
            (count,) = db.execute("SELECT count(*) FROM user").fetchone()
            if self._max_users is not None and count >= self._max_users:
                raise RequestError(f"Only a maximum of {self._max_users} users are allowed")
            if db.execute("SELECT 1 FROM user WHERE lower(email) = lower(?)", (email,)).fetchone():
                raise ConflictError(f"user {email!r} exists already")
            db.execute(
                "INSERT INTO user VALUES (?, ?, ?, 1, ?, 0)", (user.id, email, user.hashed_password, is_superuser)
            )
        return user

    def set_password(self, user_id: str, password: str) -> None:
        """Change a password; tokens given for the old one end with it."""
        hashed = self._hasher.hash(password)
        with self._writing() as db:
            db.execute("UPDATE user SET hashed_password = ? WHERE id = ?", (hashed, user_id))

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
        return User(str(row[0]), str(row[1]), str(row[2]), bool(row[3]), bool(row[4])) if row else None

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
