"""What is measured while a model trains: the largest memory of this process, and of no other."""

import subprocess
import sys

import psutil
import pytest

MUTATIONS = [("src/tutelage/training/_progress.py", 'line.startswith("VmHWM")', 'line.startswith("VmPin")')]
ASK = "import torch; from tutelage.training._progress import peak_bytes; print(peak_bytes(torch.device('cpu')))"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a new process begins at nothing")
def test_a_peak_is_not_that_of_the_process_that_started_this_one():
    held = bytearray(b"x") * 1_000_000_000
    ours = psutil.Process().memory_info().rss
    told = int(subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout)
    assert len(held) < ours and 50e6 < told < ours - 500e6
