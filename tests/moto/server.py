"""AWS on loopback: moto's server, with what moto lacks (clock.py, groups.py, images.py, refreshes.py, commands.py, chatbot.py) and what AWS
refuses (refusals.py).

    server.py [PORT]

Prints the port on its first line, and ends when its standard input does, so that it never outlives the test that started it.
SIPEDGE_MOTO_SECOND: how long a second of AWS's lasts here, in seconds (0.02).
"""

import io
import json
import logging
import os
import sys
import threading
from functools import partial

# Hundreds of images that nobody here asks for take seconds to load.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
# The server is AWS, and reads no settings of a user of AWS.
for variable in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[variable]

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

import chatbot  # noqa: E402
import commands  # noqa: E402
import forgotten  # noqa: E402
import groups  # noqa: E402
import images  # noqa: E402
import refreshes  # noqa: E402
import refusals  # noqa: E402
import rpc  # noqa: E402
from clock import CLOCK  # noqa: E402
from control import CONTROL, action_of, ask, client  # noqa: E402


class Aws:
    """The WSGI application. One request at a time: moto's backends know no locks."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.RLock()

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ.get("PATH_INFO", "")
        if path.startswith("/sipedge/"):
            return self.control(path.removeprefix("/sipedge/"), body, start_response)
        if environ.get("HTTP_SMITHY_PROTOCOL") == rpc.PROTOCOL:
            return self.rpc(environ, body, start_response)
        with self.lock:
            CLOCK.catch_up()
            if refusal := CONTROL.observe(environ, body):
                status, headers, answer = refusal
                start_response(f"{status} Refused", headers + [("Content-Length", str(len(answer)))])
                return [answer]
            if (action_of(environ, body) or "").startswith("chatbot:"):
                status, headers, answer = chatbot.CHANNELS.answer(path, body)
                start_response(f"{status} Told", headers + [("Content-Length", str(len(answer)))])
                return [answer]
            return list(self.moto(environ, start_response))

    def rpc(self, environ, body, start_response):
        """A protocol that moto lacks: asked again in one that it knows, in a request of its own."""
        with self.lock:
            refusal = CONTROL.fault_of(environ, body)
        status, headers, answer = refusal or rpc.answer(partial(ask, os.environ["MOTO_PORT"]), environ["PATH_INFO"], body)
        start_response(f"{status} Told", headers + [("Content-Length", str(len(answer)))])
        return [answer]

    def control(self, name, body, start_response):
        try:
            wish = json.loads(body or b"{}")
            if name == "ask":  # Without the lock: it is asked like anybody's question, in a request of its own.
                told = ask(os.environ["MOTO_PORT"], wish)
            elif name == "read-back":
                told = images.read_back(client(os.environ["MOTO_PORT"], "ebs"), wish)
            else:
                with self.lock:
                    CLOCK.catch_up()
                    told = CONTROL.answer(name, wish)
            status = "200 OK"
        except Exception as error:  # A wish that cannot be granted is the test's mistake, and it is told so.
            status, told = "400 Bad Request", {"error": f"{type(error).__name__}: {error}"}
        answer = json.dumps(told, default=str).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]


def end_with_stdin():
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def main():
    commands.install()
    groups.install()
    forgotten.install()
    refreshes.install()
    refusals.install()
    images.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = make_server("127.0.0.1", port, Aws(), threaded=True, request_handler=MotoRequestHandler)
    os.environ["MOTO_PORT"] = str(server.server_port)
    print(server.server_port, flush=True)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
