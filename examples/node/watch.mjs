// Keeps a copy of the users:  AUTHZ_ADDR=127.0.0.1:50051 node watch.mjs

import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import { Authz, detailsOf } from './clerk-authz.mjs';

// The first pause after a break, and the longest.
const PAUSE_MS = 200;
const MAX_PAUSE_MS = 10_000;

// The users, in memory. One that shall outlive the process keeps users, marks and the token in one
// transaction.
class Copy {
  users = new Map();
  token = '';
  // Who has come since the snapshot was begun.
  #seen = new Set();

  beginAnew() {
    this.token = '';
    this.#seen.clear();
  }

  take(message) {
    switch (message.change) {
      case 'user':
        this.users.set(message.user.id, message.user);
        this.#seen.add(message.user.id);
        console.log(`user ${message.user.id} ${message.user.firstName}`);
        break;
      case 'userDeleted':
        this.users.delete(message.userDeleted.userId);
        console.log(`gone ${message.userDeleted.userId}`);
        break;
      case 'snapshotComplete':
        for (const id of this.users.keys()) if (!this.#seen.has(id)) this.users.delete(id);
        this.#seen.clear();
        console.log(`complete: ${this.users.size} users`);
        break;
      default: // A heartbeat, or what a newer service tells, moves the token only.
    }
    this.token = message.resumeToken;
  }
}

// Never ends: whatever breaks, it goes on behind the last message.
async function follow(authz, copy) {
  for (let pause = PAUSE_MS; ; pause = Math.min(2 * pause, MAX_PAUSE_MS)) {
    try {
      for await (const message of authz.watch(copy.token)) {
        copy.take(message);
        pause = PAUSE_MS;
      }
    } catch (error) {
      console.log(`broken: ${grpc.status[error.code]} ${detailsOf(error).reason}`);
      // A fault of ours, which no repetition mends.
      if (error.code === grpc.status.INVALID_ARGUMENT) throw error;
      if (error.code === grpc.status.OUT_OF_RANGE) copy.beginAnew();
    }
    // By chance, so that not all come back at once.
    await sleep(pause * (0.5 + Math.random() / 2));
  }
}

await follow(new Authz(process.env.AUTHZ_ADDR ?? '127.0.0.1:50051'), new Copy());
