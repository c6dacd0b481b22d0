import json

import pytest

from caterva2_jupyter import errors
from caterva2_jupyter.errors import Caterva2Error, error_from_json, error_to_json

CLASSES = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_class_is_raised_at_both_ends(cls):
    error = cls("no dataset 'x' in root 'foo'")
    got = error_from_json(json.loads(json.dumps(error_to_json(error))), error.status)
    assert type(got) is cls
    assert str(got) == "no dataset 'x' in root 'foo'"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_tree_of_the_module(cls):
    assert cls.__name__ in errors.__doc__
    assert (
        str(cls.status) in next(line for line in errors.__doc__.splitlines() if cls.__name__ in line)
        or cls is Caterva2Error
    )


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.DatasetNotFoundError, FileNotFoundError), (errors.DatasetNotFoundError, LookupError),
        (errors.SelectionError, IndexError), (errors.RequestError, ValueError),
        (errors.AccessDeniedError, PermissionError),
        (errors.DeadlineError, TimeoutError), (errors.SourceUnavailableError, ConnectionError),
        (errors.NotCachedError, errors.SourceUnavailableError), (errors.DatasetChangedError, RuntimeError),
    ],
)  # fmt: skip
def test_errors_are_also_what_users_catch(cls, builtin):
    assert issubclass(cls, builtin)


@pytest.mark.parametrize(
    "body", [None, 7, "x", [], {}, {"error": 7}, {"error": "KeyError", "detail": None}, {"error": "Exception"}]
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 418, 422, 429, 500, 502, 503, 504])
def test_any_answer_becomes_an_error_of_ours(body, status):
    error = error_from_json(body, status)
    assert isinstance(error, Caterva2Error)
    assert not isinstance(error, errors.ConfigError)


def test_a_name_with_another_status_is_not_believed():
    assert type(error_from_json({"error": "DatasetNotFoundError", "detail": "x"}, 500)) is Caterva2Error


def test_messages_of_operating_system_errors_are_kept():
    assert str(errors.DatasetNotFoundError(2, "x")) == "2"
    assert str(errors.IntegrityError("block 3 is damaged")) == "block 3 is damaged"
