"""The operators' walk of `docs/operate.md` on two hosts: from keys to withdrawn bonds, across network namespaces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "devnet" / "scenarios" / "two-hosts.sh"
PATIENCE_S = 900


def reason_to_skip() -> str:
    """What this machine lacks for making network namespaces; nothing where it lacks nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)} (iproute2, util-linux)"
    trial = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "ip", "link", "add", "type", "veth"]
    tried = subprocess.run(trial, capture_output=True, text=True, timeout=30, check=False)
    return "" if tried.returncode == 0 else f"this machine grants no network namespaces: {tried.stderr.strip()}"


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S + 60)
def test_two_operators_walk_from_their_keys_to_their_bonds_return(tmp_path: Path) -> None:
    """The script checks every step itself; a kill by this timeout ends its namespaces and all that runs in them."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    environment = os.environ | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    walk = subprocess.run(
        [str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert walk.returncode == 0, walk.stdout[-6000:] + walk.stderr[-3000:]
    assert re.search(r"^== done ", walk.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == [], "the script left something behind"
