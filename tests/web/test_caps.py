from __future__ import annotations

import pytest

from caterva2_jupyter.errors import TooManyRequestsError
from caterva2_jupyter.web.caps import ClientCap


def test_a_client_at_its_cap_is_refused_while_others_are_not() -> None:
    cap = ClientCap("listeners", per_client=2, in_all=10)
    with cap.hold("a"), cap.hold("a"):
        with pytest.raises(TooManyRequestsError, match="too many listeners at once: at most 2"), cap.hold("a"):
            pass
        with cap.hold("b"):
            pass
    with cap.hold("a"):
        pass


def test_all_clients_together_have_a_cap() -> None:
    cap = ClientCap("listeners", per_client=2, in_all=1)
    with cap.hold("a"), pytest.raises(TooManyRequestsError), cap.hold("b"):
        pass


def test_what_clients_gave_back_leaves_nothing_behind() -> None:
    cap = ClientCap("listeners", per_client=2, in_all=3)
    for number in range(1000):
        with pytest.raises(KeyError), cap.hold(f"client {number}"):
            raise KeyError
    assert not cap._held
