"""broken_server.py WAY - a server on PORT that keeps the platform's contract but for one promise."""
import http.server
import json
import os
import signal
import sys
import threading
import time

WAY = sys.argv[1]
TEXT = {"generated_text": " there was a dog."}


def log(text):
    print(text if WAY == "plain_logs" else json.dumps({"message": text}), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        log(format % args)

    def answer(self, status, value=None):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "m"}]})
        elif self.path == "/v1/health/ready" and WAY == "no_alias":
            self.answer(404)
        else:
            self.answer(503 if WAY == "unhealthy" and "health" in self.path else 200)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if WAY == "small_bodies" and length > 2 * 10**6:
            self.close_connection = True
            self.answer(413, {"error": "too large"})
            return
        body = self.rfile.read(length)
        try:
            value = json.loads(body)
            assert isinstance(value.get("inputs", ""), str) and value.get("parameters", {}) is not None
        except (ValueError, AttributeError, AssertionError):
            self.answer(422, {"error": "malformed"})
            return
        if self.path == "/generate_stream" and "padding" not in value:
            self.stream()
        else:
            self.plain(value)

    def plain(self, value):
        route = self.headers.get("route") if WAY != "no_route" else None
        path = route or self.path
        if len(value.get("inputs", "")) > 1000:
            self.answer(422, {"error": "too long"})
        elif path.endswith("/v1/chat/completions"):
            self.answer(200, {"choices": [{"message": {"content": "x"}}]})
        elif path.endswith("/v1/completions"):
            self.answer(200, {"choices": [{"text": "x"}]})
        else:
            self.answer(200, [TEXT] if WAY == "array" or path == "/" else TEXT)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(10):
            last = i == 9
            event = "data:" + json.dumps(TEXT if last else {"token": {"text": "x"}}, separators=(",", ":")) + "\n\n"
            self.wfile.write(f"{len(event):x}\r\n{event}\r\n".encode())
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")


def stop(*_):
    if WAY == "cuts_streams":
        os._exit(0)
    threading.Thread(target=server.shutdown).start()


if WAY == "exits":
    sys.exit(0)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.daemon_threads = False
signal.signal(signal.SIGTERM, stop)
log("ready")
server.serve_forever(poll_interval=0.05)
server.server_close()  # waits for the threads
sys.exit(1 if WAY == "code_1" else 0)
