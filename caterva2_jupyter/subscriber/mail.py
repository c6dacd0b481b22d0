"""Telling the user of an e-mail how to set another password: by mail, or in the log where all is on one machine."""

from __future__ import annotations

import logging
import smtplib
from email.message import EmailMessage
from urllib.parse import urlsplit

from ..config import Address

__all__ = ["tell_reset"]

log = logging.getLogger("caterva2_jupyter.subscriber")

DEADLINE_S = 20


def tell_reset(email: str, urlbase: str, path: str, smtp: Address) -> None:
    """Send the address of the page where a password is set. Blocks, and never fails: what went wrong is logged.

    Parameters
    ----------
    email : str
    urlbase : str
        URL by which clients reach the service.
    path : str
        Of the page below it; holds the token.
    smtp : Address
        The mail server.
    """
    url = f"{urlbase}/{path}"
    host = urlsplit(urlbase).hostname or "localhost"
    if urlsplit(urlbase).scheme == "http" and host == "localhost":
        log.warning("a new password for %r can be set at %s", email, url)
        return
    message = EmailMessage()
    message["Subject"] = "A new password"
    message["From"] = f"noreply@{host}"
    message["To"] = email
    message.set_content(
        f"Somebody, you I hope, has forgotten the password of {email} at {urlbase}.\n"
        f"Another one can be set within the hour at\n\n{url}\n\nIf it was not you, do nothing.\n"
    )
    try:
        with smtplib.SMTP(smtp.host, smtp.port, timeout=DEADLINE_S) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        log.warning("no mail about a forgotten password could be sent by %s: %s", smtp, error)
