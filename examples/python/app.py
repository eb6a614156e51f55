"""A web handler that lets in whoever clerk-authz lets in, and nobody when it cannot be told."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clerk_authz import Authz, CannotTell, Denied

authz = Authz(os.environ.get("CLERK_AUTHZ_ADDR", "127.0.0.1:50051"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            answer = authz.verify(
                self.headers.get_all("authorization", []), self.headers.get_all("cookie", [])
            )
        except Denied as denied:
            return self.reply(401, {"reason": denied.reason}, {"www-authenticate": "Bearer"})
        except CannotTell as unknown:
            return self.reply(
                503, {"reason": unknown.reason}, {"retry-after": str(unknown.retry_after_seconds)}
            )
        session = answer.session
        self.reply(
            200,
            {
                "user_id": session.user_id,
                "organization": session.organization.id,
                "role": session.organization.role,
            },
        )

    def reply(self, code, body, headers=None):
        text = json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
