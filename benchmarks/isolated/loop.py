"""What every reader does: takes jobs as JSON lines on stdin, answers each with a JSON line on stdout.

Readers run in the environment of the library that they measure, so this imports the standard library and NumPy
only, and nothing of the project. A job is ``{"dataset": name, "keys": [[int or [start, stop] per axis], ...]}``: the
keys are read one after the other, and the answer has the seconds that took, the processor time of this process, and a
digest of the values. The first job of a dataset opens it. ``{"list": true}`` lists all small arrays with metadata.
"""

import hashlib
import json
import sys
import time

import numpy as np


def as_key(form):
    return tuple(slice(*part) if isinstance(part, list) else part for part in form)


def serve(open_dataset, list_all=None):
    """Answer jobs until stdin ends.

    Parameters
    ----------
    open_dataset : callable
        Name of a dataset to what is indexed with a tuple of ints and slices.
    list_all : callable, optional
        Gives the number of arrays whose shape, dtype and attributes it has got, and what that number would be if it
        had not stopped.
    """
    opened = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        start, cpu = time.perf_counter(), time.process_time()
        answer = {}
        try:
            if job.get("list"):
                answer["count"], answer["of"] = list_all()
            else:
                name = job["dataset"]
                if name not in opened:
                    opened[name] = open_dataset(name)
                results = [opened[name][as_key(key)] for key in job["keys"]]
            answer |= {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
            if "count" not in answer:
                digest = hashlib.blake2b(digest_size=16)
                for result in results:
                    digest.update(np.ascontiguousarray(result).reshape(-1).view(np.uint8).data)
                answer["digest"] = digest.hexdigest()
                del results
        except Exception as error:  # a peer may fail in any way: that is its figure
            answer = {"error": f"{type(error).__name__}: {error}"[:300], "seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)
