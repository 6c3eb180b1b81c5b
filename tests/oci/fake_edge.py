"""fake_edge.py PORT_FILE CONTAINER_PORT - the platform's edge in front of a container: POST /OCID/predict and
/OCID/predictWithResponseStream only, signed, 10 MB at most; forwards to /predict and keeps the container's stream.  Its port
goes to PORT_FILE, the headers of the last request to PORT_FILE.headers."""
import http.client
import http.server
import json
import os
import sys


class Edge(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass

    def refuse(self, status, code):
        body = json.dumps({"code": code}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.refuse(405, "MethodNotAllowed")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1] + ".headers", "w", encoding="utf-8") as file:
            json.dump({**self.headers, ":path": self.path, ":body": body.decode()}, file)
        signature = self.headers.get("Authorization", "")
        if not signature.startswith("Signature ") or f"bytes={len(body)}" not in signature:
            self.refuse(404, "NotAuthorizedOrNotFound")
        elif self.path not in ("/OCID/predict", "/OCID/predictWithResponseStream"):
            self.refuse(404, "NotAuthorizedOrNotFound")
        else:
            self.forward(body)

    def forward(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]), timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("authorization", "host", "content-length")}
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        if self.path.endswith("Stream") and answer.headers.get("Transfer-Encoding") != "chunked":
            self.refuse(409, "ExternalServerIncorrectState")
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("opc-request-id", "edge/1")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while part := answer.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Edge)
with open(sys.argv[1] + ".new", "w", encoding="utf-8") as port_file:
    port_file.write(str(server.server_address[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
