"""Run a command and write what it took as JSON: python -m benchmarks._watch REPORT COMMAND...

Small on purpose: on Linux the peak memory of a process begins at that of the one it was split off from.
"""

import json
import os
import sys
import time
from pathlib import Path

BYTES_A_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    report, *command = sys.argv[1:]
    started = time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ), 0)
    took = {
        "bytes": usage.ru_maxrss * BYTES_A_UNIT,
        "seconds": time.perf_counter() - started,
        "status": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(took))


if __name__ == "__main__":
    main()
