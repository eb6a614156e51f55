"""Svix's Python library as a judge and as a signer: a JSON line in, a JSON line out.

    {"sign": {"secret", "id", "seconds", "body"}}    → {"signature"}
    {"verify": {"secret", "headers", "body_base64"}} → {"svix": true or false}
"""

import base64
import json
import sys
from datetime import datetime, timezone

from svix.webhooks import Webhook


def sign(secret, id, seconds, body):
    at = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return {"signature": Webhook(secret).sign(id, at, body)}


def verify(secret, headers, body_base64):
    try:
        Webhook(secret).verify(base64.b64decode(body_base64), headers)
    except Exception:  # noqa: BLE001 - whatever it raises, the message is not taken
        return {"svix": False}
    return {"svix": True}


for line in sys.stdin:
    [(ask, question)] = json.loads(line).items()
    print(json.dumps({"sign": sign, "verify": verify}[ask](**question)))
