#!/usr/bin/env python3
"""A worker in plain Python, written from docs/worker-protocol.md alone: the standard library is all it needs.

    worker.py URL       does `double` on queue `python` until it is told to stop (SIGTERM)
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

URL = sys.argv[1].rstrip("/")
SESSION = str(uuid.uuid4())
NAME = f"{socket.gethostname()}-{os.getpid()}"
stopping = threading.Event()


class Refused(RuntimeError):
    """The server does not take what was sent, however often it is sent."""


class Mistake(RuntimeError):
    """The worker itself is wrong: its credential, its namespace, its request."""


def post(path, body, timeout):
    """Sends a request; answers its body, also when the answers in it differ or refuse."""
    headers = {"Content-Type": "application/json"}
    if os.environ.get("BACKSTITCH_API_KEY"):
        headers["Authorization"] = "Bearer " + os.environ["BACKSTITCH_API_KEY"]
    if os.environ.get("BACKSTITCH_NAMESPACE"):
        headers["Backstitch-Namespace"] = os.environ["BACKSTITCH_NAMESPACE"]
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
        if "results" in answer:
            return answer
        if error.code in (413, 422):
            raise Refused(error.code) from error
        kind = Mistake if error.code in (400, 401, 403) else RuntimeError
        raise kind(f"{path}: {error.code} {answer.get('code')}") from error


def key(task):
    return {name: task[name] for name in ("run", "step", "action", "attempt", "lease")}


UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(span):
    """The length of a span, which may have several parts: `30s`, `1m 30s`."""
    return sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[smhd])", span))


def beat(task, over, lost):
    """Gives signs of life, three times within the heartbeat, until the task is over or was revoked."""
    while not over.wait(seconds(task["heartbeat"]) / 3):
        try:
            answer = post("/v1/tasks/heartbeat", {"beats": [key(task)]}, 5)["results"][0]
            if answer["status"] in (403, 404, 409):
                return lost.set()
        except (OSError, RuntimeError):
            pass  # The next one follows soon.


def double(task):
    time.sleep(float(os.environ.get("WORK_SECONDS", "0")))
    return task["input"] * 2


def work(task):
    over, lost = threading.Event(), threading.Event()
    threading.Thread(target=beat, args=(task, over, lost), daemon=True).start()
    try:
        outcome = {"succeeded": {"output": double(task)}}
    except Exception as error:  # Nobody can say how far it got.
        failure = {"kind": "unknown", "code": "exception", "message": type(error).__name__}
        outcome = {"failed": failure}
    finally:
        over.set()
    report(task, outcome)


def report(task, outcome):
    """Reports until the server has answered; what is too late changes nothing."""
    delay, refused = 0.1, False
    while True:
        try:
            answer = post("/v1/tasks/complete", {"results": [{**key(task), "outcome": outcome}]}, 30)
            status = answer["results"][0]["status"]
            if status == 422 and not refused:
                raise Refused(status)
            if status not in (429, 500, 503):
                return
        except Refused as error:
            if refused:
                return print(f"{task['run']} {task['step']}: {error}", file=sys.stderr)
            outcome, refused = instead(outcome, error), True
            continue
        except Mistake as error:
            sys.exit(f"stopping: {error}")
        except (OSError, RuntimeError):
            pass
        time.sleep(delay)
        delay = min(delay * 2, 5)


def instead(outcome, refused):
    """The report in place of one that the server does not take."""
    if refused.args[0] == 413 and "succeeded" in outcome:
        return {"done_without_output": {"code": "output_too_large", "message": "larger than a request"}}
    failed = outcome.get("failed", {"kind": "unknown", "code": "report_refused"})
    return {"failed": {"kind": failed["kind"], "code": failed["code"], "message": "the server refused the report"}}


def last_words(path, body):
    try:
        post(path, body, 5)
    except (OSError, RuntimeError) as error:
        print(f"{path}: {error}; the server finds out by itself", file=sys.stderr)


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    claim = {
        "worker": NAME,
        "session": SESSION,
        "queues": {"python": ["double"]},
        "max": 1,
        "wait": "1s",
    }
    delay = 0.1
    while not stopping.is_set():
        try:
            answer = post("/v1/tasks/claim", claim, 35)
            delay = 0.1
        except Mistake as error:
            sys.exit(f"stopping: {error}")
        except (OSError, RuntimeError) as error:
            print(f"{error}; trying again", file=sys.stderr)
            claim["holding"] = []  # One task at a time: while it claims, it has none.
            time.sleep(delay)
            delay = min(delay * 2, 5)
            continue
        if answer.get("holding_unknown"):
            claim["holding"] = []
        else:
            claim.pop("holding", None)
        for task in answer["tasks"]:
            if stopping.is_set():
                last_words("/v1/tasks/release", {"session": SESSION, "tasks": [key(task)]})
            else:
                work(task)
    last_words("/v1/workers/sign-off", {"session": SESSION})


if __name__ == "__main__":
    main()
