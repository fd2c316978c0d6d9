"""What worker processes do in tests: apart from the tests, so that a worker has little to import."""

import os
import signal
import threading
from typing import Any


def dies_on(task: Any) -> str:
    if task == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "exit":
        os._exit(3)
    return f"fine {task}"


def hangs_on(task: Any) -> str:
    if task == "hang":
        threading.Event().wait()
    return f"fine {task}"
