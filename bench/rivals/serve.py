"""How a rival, in an environment of its own, takes requests: a JSON object a line, answered by one."""

import json
import sys
from collections.abc import Callable


def serve(*actions: Callable[..., dict[str, object]]) -> None:
    """Call the action that `do` names with the request's other fields, until the input ends."""
    by_name = {action.__name__: action for action in actions}
    for line in sys.stdin:
        request = json.loads(line)
        action = by_name[request.pop("do")]
        answer(action(**request))


def answer(fields: dict[str, object]) -> None:
    """Answer the request at hand."""
    print(json.dumps({"answer": fields}), flush=True)
