"""An OpenAI-compatible endpoint on loopback: what answers is a function, a real tiny transformers model, or a fault.

with ChatServer(TinyModel(folder)) as server:
    Endpoint(server.url, "tiny").complete([{"role": "user", "content": "hello"}], 20)
    server.next(Fault(429, headers={"Retry-After": "3"}))           # the next request gets that
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import torch

from stoppable import Stoppable
from tiny_models import save_model, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Messages = list[dict[str, str]]

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@dataclass
class Fault:
    """What the next request gets: a status with a body, or, `silent`, nothing until the server stops."""

    status: int = 500
    body: str = '{"error": {"message": "as the test says"}}'
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False


class TinyModel:
    """A random tiny Llama with a byte-level tokenizer, generated from by transformers' own `generate`."""

    def __init__(self, folder: Path) -> None:
        """Save it to `folder` and load it as anybody would."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        save_model(folder, "llama", vocab_size=300, max_position_embeddings=20_000)
        save_tokenizer(folder, every_byte=True, template=TEMPLATE)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._lock = threading.Lock()

    def __call__(self, messages: Messages, most_tokens: int) -> str:
        """Answer, greedily."""
        with self._lock, torch.inference_mode():
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
            ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
            out = self._model.generate(
                **ids, max_new_tokens=min(most_tokens, 12), do_sample=False, pad_token_id=self._tokenizer.eos_token_id
            )
            return str(self._tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


class ChatServer(Stoppable, ThreadingHTTPServer):
    """Listens from its construction to its exit. `seen` are the requests: their headers and bodies."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Messages, int], str]) -> None:
        """Answer with what `answer` gives for messages and the most tokens."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def next(self, *faults: Fault) -> None:
        """Say what the next requests get."""
        self.faults += faults

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about connections that their client has closed."""

    def stop(self) -> None:
        """Stop listening."""
        self.ended.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_GET(self) -> None:  # where a redirected request ends
        self.server.seen.append((dict(self.headers), {}))
        self._send(404, "", {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((dict(self.headers), body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if self.path != "/v1/chat/completions":
            fault = Fault(404)
        if fault and fault.silent:
            self.server.ended.wait()
        elif fault:
            self._send(fault.status, fault.body, fault.headers)
        else:
            text = self.server.answer(body["messages"], body["max_tokens"])
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            self._send(200, json.dumps({"object": "chat.completion", "choices": [choice]}), {})

    def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
