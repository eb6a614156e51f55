"""A web handler that lets in whoever clerk-authz lets in, and nobody when it cannot be told."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clerk_authz import Authz, CannotTell, Denied, Forbidden

authz = Authz(os.environ.get("AUTHZ_ADDR", "127.0.0.1:50051"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        """Who am I?"""
        self.answer(self.who)

    def do_POST(self):
        """Make an invoice, in the organization that is active in the session."""
        self.answer(self.make_invoice)

    def who(self, authorization, cookie):
        session = authz.verify(authorization, cookie).session
        return 200, {
            "user_id": session.user_id,
            "organization": session.organization.id,
            "role": session.organization.role,
        }

    def make_invoice(self, authorization, cookie):
        decision = authz.require(authorization, cookie, permission="org:invoices:create")
        return 201, {"organization": decision.organization_id}

    def answer(self, handler):
        try:
            code, body = handler(
                self.headers.get_all("authorization", []), self.headers.get_all("cookie", [])
            )
            self.reply(code, body)
        except Denied as denied:
            self.reply(401, {"reason": denied.reason}, {"www-authenticate": "Bearer"})
        except Forbidden as forbidden:
            self.reply(403, {"reason": forbidden.reason, "decision_id": forbidden.decision_id})
        except CannotTell as unknown:
            self.reply(
                503, {"reason": unknown.reason}, {"retry-after": str(unknown.retry_after_seconds)}
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
