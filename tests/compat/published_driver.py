"""Runs inside the environment of the published package: calls its public API, one JSON line per call and per answer.

It imports ``caterva2`` as anybody's script would. Objects that an answer holds stay here and are named by numbers.
"""

import base64
import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import sys

import numpy

OBJECTS = {}


def encode(value):
    if isinstance(value, numpy.ndarray):
        raw = io.BytesIO()
        numpy.save(raw, value, allow_pickle=False)
        return {"npy": base64.b64encode(raw.getvalue()).decode()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, pathlib.PurePath):
        return {"path": str(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    OBJECTS[len(OBJECTS)] = value
    return {"object": len(OBJECTS) - 1, "repr": repr(value), "type": type(value).__name__}


def run_command(arguments):
    """A console script of the package, as its own process would run it."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=arguments[0])
    out, error = io.StringIO(), io.StringIO()
    code = 0
    before = sys.argv
    sys.argv = arguments
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = script.load()() or 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return {"code": code, "out": out.getvalue(), "err": error.getvalue()}


def answer(caterva2, request):
    if "chdir" in request:
        return os.chdir(request["chdir"])
    if "command" in request:
        return run_command(request["command"])
    names = {"cat2": caterva2, "Path": pathlib.Path, "np": numpy, "slice": slice, **request.get("names", {})}
    for name, number in request.get("objects", {}).items():
        names[name] = OBJECTS[number]
    return encode(eval(request["code"], names))


def main():
    import caterva2

    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            reply = {"value": answer(caterva2, json.loads(line))}
        except Exception as error:
            reply = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
