"""The dashboard on its real server, for a test, a benchmark or a picture; and a Chromium to look at it.

python tools/served.py            take the README's picture of the dashboard anew
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

FOLDER = Path(__file__).resolve().parent.parent / "07_entropy_plotter"
PICTURE = FOLDER / "dashboard.png"
SHOWN = {"prompt": "Once Vera", "T": 1.3, "p": 0.9, "seed": 2, "at": 64, "told": 1}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu"]


@contextmanager
def served(script: Path = FOLDER / "dashboard.py") -> Iterator[str]:
    """A Streamlit page served on a free loopback port, from the script's own folder: yields its host and port.

    Raises RuntimeError if the server ends before it answers, thrice: somebody else may have taken the free port.
    """
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "streamlit", "run", script.name, "--server.headless=true"]
        command += ["--server.address=127.0.0.1", f"--server.port={host.split(':')[1]}"]
        command += ["--browser.gatherUsageStats=false"]
        process = subprocess.Popen(command, cwd=script.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if _comes_up(process, host):
            break
    else:
        raise RuntimeError(f"{' '.join(command)} has ended with {process.returncode}")
    try:
        yield host
    finally:
        process.terminate()
        process.wait(20)


def _comes_up(process: subprocess.Popen, host: str) -> bool:
    """Wait until the server answers (True) or has ended (False)."""
    while not _answers(f"http://{host}/_stcore/health"):
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return process.poll() is None  # else it was another's server that answered


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address).status == 200
    except OSError:
        return False


def main() -> None:
    """Take the picture."""
    from playwright.sync_api import expect, sync_playwright

    with served() as host, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1240, "height": 1720})
        page.goto(f"http://{host}/?{urlencode(SHOWN)}")
        expect(page.get_by_text("Judge:")).to_be_visible(timeout=60_000)
        expect(page.locator(".js-plotly-plot")).to_have_count(3, timeout=60_000)
        page.locator("[data-test-script-state=notRunning]").wait_for()
        page.wait_for_timeout(1000)  # bars grow into place
        page.screenshot(path=PICTURE)
        chromium.close()
    print(f"wrote {PICTURE.name}")


if __name__ == "__main__":
    main()
