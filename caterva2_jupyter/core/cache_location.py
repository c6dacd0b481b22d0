"""Where a cache's files are: for readers in other processes than the one that keeps it.

Names and a proof, as values; no file is opened here. What is in the files is ``cache_format``'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ..errors import IntegrityError

__all__ = ["DATA", "JOURNAL", "META", "CacheLocation", "dataset_directory", "version_directory"]

META, DATA, JOURNAL = "meta.json", "data", "journal"
"""Names of a version's files."""


def dataset_directory(root: str, dataset_id: str) -> str:
    """Where a dataset's versions are, below the cache's directory.

    The root is part of it: ids are what a publisher says they are.
    """
    digest = hashlib.blake2b(f"{root}\0{dataset_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    return digest.hexdigest()


def version_directory(root: str, dataset_id: str, version: str) -> str:
    """Where a version's files are, below the cache's directory."""
    return f"{dataset_directory(root, dataset_id)}/{hashlib.blake2b(version.encode(), digest_size=16).hexdigest()}"


@dataclass(frozen=True, slots=True)
class CacheLocation:
    """Where a service says that its cache is, for readers on the same machine.

    Attributes
    ----------
    directory : str
        Absolute path.
    host : str
        Name of the machine.
    proof : str
        Name of a file in the directory.
    digest : str
        Of what is in that file, see ``proof_digest``: who reads the file knows that both see one file system, and
        who cannot learns nothing.

    Examples
    --------
    >>> location = CacheLocation("/cache", "host", "proof", CacheLocation.proof_digest(b"random"))
    >>> CacheLocation.from_json(location.to_json()).is_proved_by(b"random")
    True
    """

    directory: str
    host: str
    proof: str
    digest: str

    @staticmethod
    def proof_digest(content: bytes) -> str:
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def is_proved_by(self, content: bytes) -> bool:
        return bool(content) and self.proof_digest(content) == self.digest

    def to_json(self) -> dict[str, Any]:
        return {"directory": self.directory, "host": self.host, "proof": self.proof, "digest": self.digest}

    @classmethod
    def from_json(cls, form: Any) -> CacheLocation:
        try:
            texts = [form[name] for name in ("directory", "host", "proof", "digest")]
        except (KeyError, TypeError):
            raise IntegrityError("malformed location of a cache") from None
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise IntegrityError("malformed location of a cache")
        location = cls(*texts)
        if "/" in location.proof or not location.directory.startswith("/"):
            raise IntegrityError("malformed location of a cache")
        return location
