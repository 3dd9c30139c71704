#!/usr/bin/python3
"""Stands in for `sipedge-proxy boot`: metadata, UDP echo on both SIP ports, TCP echo where SIP over TCP and TLS arrives, HTTP on the
admin port.

The user-data is JSON: {"ingress": port, "egress": port, "tls": port, "admin": port, "behave": "serve" | "fail" | "stubborn"}.
Each echo says which instance, on which port, saw which source.
"""
import json
import selectors
import signal
import socket
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer
from urllib.parse import parse_qs, urlparse

METADATA = "http://169.254.169.254/latest/"


def request(path, method="GET", headers=None):
    asked = urllib.request.Request(METADATA + path, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def token():
    return request("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})[1]


def metadata(path):
    return request(path, headers={"X-aws-ec2-metadata-token": token()})


def resolve(server, name, kind):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0" + labels + kind.to_bytes(2, "big") + b"\0\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.sendto(query, (server, 53))
        answer = client.recv(512)
    code, count = answer[3] & 15, int.from_bytes(answer[6:8], "big")
    rest, found = answer[12 + len(labels) + 4:], []
    for _ in range(count):
        rest = rest[2 if rest[0] & 0xC0 == 0xC0 else rest.index(b"\0") + 1:]
        ttl, length = int.from_bytes(rest[4:8], "big"), int.from_bytes(rest[8:10], "big")
        found.append([socket.inet_ntoa(rest[10:10 + length]), ttl])
        rest = rest[10 + length:]
    return {"code": code, "answers": found}


data = json.loads(metadata("user-data")[1])
me = metadata("meta-data/instance-id")[1]
address = metadata("meta-data/local-ipv4")[1]
print(f"{me} boots on {address}, arguments {sys.argv[1:]}", flush=True)
if data["behave"] == "fail":
    print("the configuration is wrong", file=sys.stderr)
    sys.exit(3)
if data["behave"] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

state = {"ready": True, "seen": []}
sockets = {}
for port in {data["ingress"], data["egress"]}:
    sockets[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets[port].bind((address, port))
replies = threading.Condition()
answered = []


def echo():
    selector = selectors.DefaultSelector()
    for port, sock in sockets.items():
        selector.register(sock, selectors.EVENT_READ, port)
    while True:
        for key, _ in selector.select():
            text, source = key.fileobj.recvfrom(2048)
            state["seen"].append(text.decode())
            if text.startswith(b"reply"):
                with replies:
                    answered.append(text.decode())
                    replies.notify_all()
            else:
                key.fileobj.sendto(f"{me} {key.data} {source[0]}:{source[1]} {text.decode()}".encode(), source)


connections = []


class Lines(StreamRequestHandler):
    """Echoes each line of a connection."""

    def handle(self):
        for line in self.rfile:
            text, port = line.decode().rstrip("\n"), self.server.server_address[1]
            state["seen"].append(text)
            self.wfile.write(f"{me} {port} {self.client_address[0]}:{self.client_address[1]} {text}\n".encode())


class Streams(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, body = 200, ""
        if url.path == "/readyz":
            status = 200 if state["ready"] else 503
        elif url.path == "/set-ready":
            state["ready"] = query["to"] == "1"
        elif url.path == "/seen":
            body = json.dumps(state["seen"])
        elif url.path == "/send":
            host, port = query["to"].split(":")
            sockets[int(query["from"])].sendto(query["text"].encode(), (host, int(port)))
        elif url.path == "/connect":
            host, port = query["to"].split(":")
            connection = socket.create_connection((host, int(port)), timeout=3)
            connections.append(connection)
            connection.sendall(query["text"].encode() + b"\n")
            body = connection.makefile().readline().rstrip("\n")
        elif url.path == "/replied":
            with replies:
                replies.wait_for(lambda: answered, timeout=3)
            body = json.dumps(answered)
        elif url.path == "/metadata":
            status, body = metadata(query["path"])
        elif url.path == "/metadata-with":
            status, body = request(query["path"], headers={"X-aws-ec2-metadata-token": query.get("token", "")})
        elif url.path == "/metadata-without":
            status, body = request(query["path"])
        elif url.path == "/token":
            status, body = request("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": query["ttl"]})
        elif url.path == "/resolve":
            body = json.dumps(resolve(query["server"], query["name"], int(query["kind"])))
        else:
            status = 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def server_bind(self):
        # The library's own would ask the machine's name servers for this address's name.
        TCPServer.server_bind(self)


threading.Thread(target=echo, daemon=True).start()
for stream_port in (data["ingress"], data["tls"]):
    server = Streams((address, stream_port), Lines)
    threading.Thread(target=server.serve_forever, daemon=True).start()
Server((address, data["admin"]), Handler).serve_forever()
