"""Run all checks; exit code 1 when one fails."""

from __future__ import annotations

import argparse
import os
import sys
import unittest
from pathlib import Path

from ..errors import Caterva2Error
from ..tools.children import ChildError
from .case import Case
from .deployment import Deployment, ExternalDeployment, OwnDeployment

STATE = Path("_caterva2_tests")


def _suite(deployment: Deployment) -> unittest.TestSuite:
    found = unittest.defaultTestLoader.discover(
        str(Path(__file__).parent), pattern="check_*.py", top_level_dir=str(Path(__file__).parents[2])
    )
    pending: list[unittest.TestSuite | unittest.TestCase] = [found]
    while pending:
        item = pending.pop()
        if isinstance(item, unittest.TestSuite):
            pending += list(item)
        elif isinstance(item, Case):
            item.deployment = deployment
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0 when all that was checked is well, 1 when something is not or no service could be started.
    """
    parser = argparse.ArgumentParser(
        prog="python -m caterva2_jupyter.tests",
        description="Check an installation, by services of its own or (CATERVA2_USE_EXTERNAL=1) those that run.",
        epilog="example: python -m caterva2_jupyter.tests -v -k cache",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name every check, and why one is skipped")
    parser.add_argument("-k", metavar="TEXT", action="append", help="only checks whose names contain this")
    options = parser.parse_args(argv)
    if options.k:
        unittest.defaultTestLoader.testNamePatterns = [f"*{text}*" for text in options.k]
    runner = unittest.TextTestRunner(verbosity=2 if options.verbose else 1)
    is_external = os.environ.get("CATERVA2_USE_EXTERNAL", "") not in ("", "0")
    try:
        with ExternalDeployment() if is_external else OwnDeployment(STATE) as deployment:
            result = runner.run(_suite(deployment))
    except (ChildError, Caterva2Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if not is_external:
        print(f"state and logs are in {STATE}", file=sys.stderr)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
