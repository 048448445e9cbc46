"""A real browser without a window, driven over its debugging protocol: what a person does, and what the page does.

    with Browser.start(folder) as browser:
        tab = browser.open("http://127.0.0.1:8000/index.html")
        tab.press("/")
        assert not tab.complaints

It is Debian's Chromium, which `tools/browser` installs.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import websocket

from stoppable import Stoppable

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
START_SECONDS = 30.0
PATIENCE = 10.0
# Without the background's connections: the page's own ones are all that is to be seen.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--force-color-profile=srgb", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip
_KEYS = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "End": 35, "Home": 36, "PageDown": 34, "Tab": 9}


def program() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    named = os.environ.get("KUBESAE_BROWSER")
    return named or next((found for found in map(shutil.which, NAMES) if found), None)


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """End a browser and wait for its end. Debian starts it by a script, which must not be all that ends."""
    os.killpg(process.pid, number)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Browser(Stoppable):
    """A running browser."""

    process: subprocess.Popen[bytes]
    socket: websocket.WebSocket
    number: int = 0
    tabs: dict[str, Tab] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path) -> Browser:
        """Start a browser that knows nothing yet and keeps what it keeps in `folder`."""
        log = folder / "log"
        with log.open("wb") as out:
            command = [program() or "chromium", *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out, start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            said = log.read_text(errors="replace")
            if "DevTools listening on " in said and said.endswith("\n"):
                url = said.partition("DevTools listening on ")[2].split()[0]
                return cls(process, websocket.create_connection(url, timeout=PATIENCE))
            time.sleep(0.02)
        _end(process, signal.SIGKILL)
        raise RuntimeError(f"the browser did not start: {log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End the browser and wait for its end."""
        self.socket.close()
        _end(self.process, signal.SIGTERM)

    def open(self, url: str, *, width: int = 1360, height: int = 860, dark: bool = False, wait: bool = True) -> Tab:
        """Open a page in a tab of its own and wait until it shows a view; or the blank one, without `wait`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        tab = Tab(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        self.tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        if wait:
            tab.go(url)
        return tab

    def call(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Do something and return what comes of it; what tabs report meanwhile is kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": arguments}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            tab = self.tabs.get(answer.get("sessionId", ""))
            if tab is not None:
                tab.note(answer["method"], answer.get("params", {}))


@dataclass
class Tab:
    """A page that is open. `complaints`: errors and warnings of its console. `requests`: URLs that it asked for."""

    browser: Browser
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Do something with this tab."""
        return self.browser.call(method, self.session, **arguments)

    def note(self, method: str, event: dict[str, Any]) -> None:
        """Keep what the browser says of this tab."""
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(event["exceptionDetails"].get("exception", event)))
        elif method == "Runtime.consoleAPICalled" and event["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    def go(self, url: str) -> None:
        """Go to a URL and wait until the page has a view."""
        self.call("Page.navigate", url=url)
        self.wait("document.querySelector('main .page') !== null && document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            if time.monotonic() > end:
                shown = self.js("document.body?.innerText.slice(0, 400)")
                raise AssertionError(f"not true after {seconds} s: {expression}\n{shown}\n{self.complaints}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """Return the text that an element shows."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """Return the texts that elements show."""
        found: list[str] = self.js(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)"
        )
        return found

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names such as Enter."""
        for key in keys:
            code = _KEYS.get(key)
            text = "\r" if key == "Enter" else None if code else key
            common = {"key": key, "windowsVirtualKeyCode": code or 0} | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", type="keyDown", **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> tuple[float, float]:
        box = self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'nearest'}); const {x, y, width, height} = one.getBoundingClientRect();"
            " return [x + width / 2, y + height / 2]; })()"
        )
        return box[0], box[1]

    def screenshot(self, path: Path) -> None:
        """Write what is in sight as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
