"""What the benchmarks make of what they measured: of made-up samples, and of a small process."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import machine

BUSY_S = 0.2
STARTS_ANOTHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
BUSY_WHEN_TOLD = f"""
import time
print(flush=True)
input()
began = time.process_time()
while time.process_time() - began < {BUSY_S}:
    pass
print(flush=True)
input()
"""


def test_what_a_process_started_counts_as_its_own() -> None:
    command = [sys.executable, "-c", STARTS_ANOTHER, BUSY_WHEN_TOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = machine.CpuSnapshot.take(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        used = machine.CpuSnapshot.take(process.pid).since(before)
        process.stdin.write(b"\n")
    assert used.outside >= 0.9 * BUSY_S
    assert sum(used.threads.values()) < 0.5 * BUSY_S
