"""A worker process whose jobs do what hostile bytes could do to a real one."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np

from caterva2_jupyter.compute.jobs import JOBS, STREAMED
from caterva2_jupyter.compute.worker import main
from caterva2_jupyter.errors import SelectionError


def crash(arguments, buffers):
    ctypes.string_at(0)


def eat(arguments, buffers):
    return {"nbytes": int(np.ones(arguments["nbytes"], np.uint8).sum())}, []


def loop(arguments, buffers):
    while True:
        pass


def wait(arguments, buffers):
    time.sleep(arguments["wait_s"])
    return {}, []


def leave(arguments, buffers):
    os._exit(3)


def refuse(arguments, buffers):
    raise SelectionError("not like this")


def fail(arguments, buffers):
    raise KeyError("two\nlines")


def echo(arguments, buffers):
    return dict(arguments), [bytes(b) for b in buffers]


def environment(arguments, buffers):
    return {"names": sorted(os.environ), "here": os.path.exists("."), "pid": os.getpid()}, []


def write(arguments, buffers):
    with open(arguments["path"], "w") as file:
        file.write("x" * 10)
    return {}, []


def total(arguments, parts):
    sizes = []
    for buffers in parts:
        if arguments.get("fails") == len(sizes):
            raise SelectionError("not this part")
        if arguments.get("stops") == len(sizes):
            break
        sizes.append(sum(map(len, buffers)))
    return {"sizes": sizes}, []


def inquire(arguments, ask):
    return {"got": [[len(b) for b in ask(want)] for want in arguments["wants"]]}, []


if __name__ == "__main__":
    jobs = {f.__name__: f for f in (crash, eat, loop, wait, leave, refuse, fail, echo, environment, write)}
    sys.exit(main(sys.argv[1:], {**JOBS, **jobs}, {**STREAMED, "total": total}, {"inquire": inquire}))
