"""Asks about one token:  AUTHZ_ADDR=127.0.0.1:50051 python verify.py TOKEN"""

import os
import sys

from clerk_authz import Authz, CannotTell, Denied, pb

if len(sys.argv) != 2:
    sys.exit(__doc__)
authz = Authz(os.environ.get("AUTHZ_ADDR", "127.0.0.1:50051"))
try:
    session = authz.ask(pb.VerifySessionRequest(token=sys.argv[1])).session
    print(f"accepted: {session.user_id} in {session.organization.id or 'no organization'}")
except Denied as denied:
    sys.exit(f"denied: {denied.reason}")
except CannotTell as unknown:
    sys.exit(f"cannot tell: {unknown.reason}")
finally:
    authz.close()
