// What a Node service needs to ask clerk-authz: copy this file and the folder proto/.

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import protobuf from 'protobufjs';
import { fileURLToPath } from 'node:url';

const protos = process.env.AUTHZ_PROTOS ?? fileURLToPath(new URL('../../proto', import.meta.url));
const options = { includeDirs: [protos], longs: String, enums: String, oneofs: true, defaults: true };
const { clerkauthz } = grpc.loadPackageDefinition(loader.loadSync('clerkauthz/v1/authz_service.proto', options));
// The details of an error travel as bytes in a trailer.
const rpc = new protobuf.Root();
rpc.resolvePath = (_, file) => (file.startsWith('google/protobuf/') ? null : `${protos}/${file}`);
rpc.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto']);

// A caller that waits longer than this has better things to do than to wait.
const DEADLINE_MS = 500;

// Retries are the channel's business: only for "cannot tell", never for a denial.
const SERVICE_CONFIG = JSON.stringify({
  methodConfig: [
    {
      name: [{ service: 'clerkauthz.v1.AuthzService' }],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.05s',
        maxBackoff: '0.2s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
  loadBalancingConfig: [{ round_robin: {} }],
});

// The token is not good; `reason` says why.
export class Denied extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

// The token is good, and its user may not; `decisionId` is found in the service's log.
export class Forbidden extends Error {
  constructor(reason, decisionId) {
    super(reason);
    this.reason = reason;
    this.decisionId = decisionId;
  }
}

// Neither yes nor no: answer 503, and never let the request pass.
export class CannotTell extends Error {
  constructor(reason, retryAfterSeconds) {
    super(reason);
    this.reason = reason;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

// One for the whole process: it holds one channel, which reconnects by itself.
export class Authz {
  #client;

  constructor(address) {
    this.#client = new clerkauthz.v1.AuthzService(address, grpc.credentials.createInsecure(), {
      'grpc.service_config': SERVICE_CONFIG,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.max_reconnect_backoff_ms': 1_000,
    });
  }

  // The session, for header values as they were received.
  async verify(authorization, cookie) {
    return (await this.#call('verifySession', { http: { authorization, cookie } })).session;
  }

  // Passes only if the caller may: `require(a, c, { permission: 'org:invoices:create' })`. Takes the
  // fields of CheckOrgPermissionRequest; throws Forbidden where the answer is no.
  async require(authorization, cookie, asked) {
    const answer = await this.#call('checkOrgPermission', { http: { authorization, cookie }, ...asked });
    // A "no" about a permission is an answer: forget to look, and everybody is let in.
    if (answer.allowed !== true) {
      // A reason of a newer service comes as its number.
      throw new Forbidden(String(answer.reason).replace(/^REASON_/, ''), answer.decisionId);
    }
    return answer;
  }

  // Messages about users, without end and without a deadline; see watch.mjs.
  watch(resumeToken) {
    return this.#client.watchUsers({ resumeToken });
  }

  #call(rpcName, request) {
    const deadline = new Date(Date.now() + DEADLINE_MS);
    return new Promise((resolve, reject) => {
      this.#client[rpcName](request, { deadline }, (error, answer) => {
        if (!error) return resolve(answer);
        const { reason, retryAfterSeconds } = detailsOf(error);
        if (error.code === grpc.status.UNAUTHENTICATED) return reject(new Denied(reason));
        // Everything else, whatever it is, is not a yes.
        reject(new CannotTell(reason || grpc.status[error.code], retryAfterSeconds));
      });
    });
  }

  close() {
    this.#client.close();
  }
}

// The reason of ErrorInfo and the delay of RetryInfo, in whole seconds.
export function detailsOf(error) {
  const found = { reason: '', retryAfterSeconds: 1 };
  for (const bytes of error.metadata?.get('grpc-status-details-bin') ?? []) {
    for (const { type_url: url, value } of rpc.lookupType('google.rpc.Status').decode(bytes).details) {
      if (url.endsWith('/google.rpc.ErrorInfo')) {
        found.reason = rpc.lookupType('google.rpc.ErrorInfo').decode(value).reason;
      } else if (url.endsWith('/google.rpc.RetryInfo')) {
        const { seconds } = rpc.lookupType('google.rpc.RetryInfo').decode(value).retryDelay;
        found.retryAfterSeconds = Math.max(1, Number(seconds));
      }
    }
  }
  return found;
}
