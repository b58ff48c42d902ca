"""Processes that train start also where the fork server cannot."""

import os
import subprocess
import sys
from pathlib import Path

CALL = """
import os
from normlab.study import workers

def parent(connection):
    return os.getppid()

if __name__ == "__main__":
    parents = [workers.call_in_process(parent) for _ in range(2)]
    print(parents[0] > 0, parents[1] == os.getpid())
"""


def test_where_the_fork_servers_socket_cannot_be_a_process_is_started_afresh(
    tmp_path: Path,
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    script = tmp_path / "call.py"
    script.write_text(CALL)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert done.stderr.count("\n") == 1
    assert "TMPDIR" in done.stderr
