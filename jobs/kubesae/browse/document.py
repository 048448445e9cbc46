"""index.html: style and modules of the folder `assets` in one file that may run nothing else and load from no one else.

The modules are plain ES modules, which a browser could load as they are. In the page each becomes a function that is
called once and returns what it exports, after those that it imports from. The content security policy names the hashes
of what results, so the browser refuses any other script or style, whatever a token's text holds.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const) (\w+)", re.MULTILINE)
_MAIN = "main.js"


def document(embedded: str = "") -> str:
    """Return the page. `embedded`: JSON of what it shows, in place of files beside it (`single`)."""
    style, script = asset("style.css"), script_of(_MAIN)
    where = "'none'" if embedded else "'self'"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"connect-src {where}; base-uri 'none'; form-action 'none'"
    )
    block = f'<script type="application/json" id="embedded">{_inert(embedded)}</script>' if embedded else ""
    page = asset("page.html")
    for name, content in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script), ("EMBEDDED", block)):
        page = page.replace(f"<!--{name}-->", content, 1)
    return page


def asset(name: str) -> str:
    """Return a file of the folder `assets`."""
    return (files("kubesae.browse") / "assets" / name).read_text(encoding="utf-8")


def script_of(main: str) -> str:
    """Return a module and all that it imports as one module."""
    return "const modules = {};\n" + "".join(_as_function(name, asset(name)) for name in modules(main))


def _as_function(name: str, source: str) -> str:
    """Return a module as a statement that runs it and keeps what it exports."""
    exported = ", ".join(found[1] for found in _EXPORT.findall(source))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r'const {\1} = modules["\2"];\n', source))
    return f'modules["{name}"] = (() => {{\n{body}return {{ {exported} }};\n}})();\n'


def modules(main: str) -> list[str]:
    """Return a module and all that it imports, directly or not, each after those that it imports from itself."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        seen.add(name)
        for other in imports(asset(name)):
            if other not in seen:
                visit(other)
        order.append(name)

    visit(main)
    return order


def imports(source: str) -> dict[str, list[str]]:
    """Return what a module imports: names by file."""
    return {file: [name.strip() for name in names.split(",")] for names, file in _IMPORT.findall(source)}


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _inert(text: str) -> str:
    """Return JSON in which nothing ends the element that it stands in."""
    return text.replace("<", "\\u003c")
