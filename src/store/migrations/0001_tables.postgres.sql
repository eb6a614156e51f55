-- What is known of an entity as far as ordering goes stands in the same columns of each of the three
-- tables: version_ms, as_of_ms (NULL: an event said it), digest, doubtful, deleted_ms, absent_ms,
-- confirmed_ms, seen_ms; live and look_up follow from them, for indexes. The others are NULL once a
-- deletion has taken the content. Times are Unix milliseconds. Ids are ordered by their bytes, as
-- SQLite does it.

CREATE TABLE users (
  instance TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  version_ms BIGINT, as_of_ms BIGINT, digest BYTEA, doubtful BIGINT NOT NULL,
  deleted_ms BIGINT, absent_ms BIGINT, confirmed_ms BIGINT, seen_ms BIGINT,
  live BIGINT NOT NULL, look_up BIGINT NOT NULL, touched_ms BIGINT NOT NULL,
  external_id TEXT, username TEXT, first_name TEXT, last_name TEXT, image_url TEXT,
  emails TEXT, banned BIGINT, locked BIGINT, deprovisioned BIGINT,
  public_metadata TEXT, created_ms BIGINT, last_sign_in_ms BIGINT, source TEXT,
  PRIMARY KEY (instance, id)
);
CREATE INDEX users_by_external_id ON users (instance, external_id) WHERE live = 1;
CREATE INDEX users_to_look_up ON users (instance, id) WHERE look_up = 1;
CREATE INDEX users_buried ON users (instance, touched_ms) WHERE live = 0;

-- One row for each verified address of a user that is there.
CREATE TABLE user_emails (
  instance TEXT COLLATE "C" NOT NULL,
  address TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (instance, address, user_id),
  FOREIGN KEY (instance, user_id) REFERENCES users (instance, id) ON DELETE CASCADE
);
CREATE INDEX user_emails_by_user ON user_emails (instance, user_id);

CREATE TABLE organizations (
  instance TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  version_ms BIGINT, as_of_ms BIGINT, digest BYTEA, doubtful BIGINT NOT NULL,
  deleted_ms BIGINT, absent_ms BIGINT, confirmed_ms BIGINT, seen_ms BIGINT,
  live BIGINT NOT NULL, look_up BIGINT NOT NULL, touched_ms BIGINT NOT NULL,
  slug TEXT, name TEXT, image_url TEXT, public_metadata TEXT, created_ms BIGINT, source TEXT,
  PRIMARY KEY (instance, id)
);
CREATE INDEX organizations_by_slug ON organizations (instance, slug) WHERE live = 1;
CREATE INDEX organizations_to_look_up ON organizations (instance, id) WHERE look_up = 1;
CREATE INDEX organizations_buried ON organizations (instance, touched_ms) WHERE live = 0;

CREATE TABLE memberships (
  instance TEXT COLLATE "C" NOT NULL,
  organization_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  version_ms BIGINT, as_of_ms BIGINT, digest BYTEA, doubtful BIGINT NOT NULL,
  deleted_ms BIGINT, absent_ms BIGINT, confirmed_ms BIGINT, seen_ms BIGINT,
  live BIGINT NOT NULL, look_up BIGINT NOT NULL, touched_ms BIGINT NOT NULL,
  slug TEXT, role TEXT, permissions TEXT, standing TEXT, created_ms BIGINT, source TEXT,
  PRIMARY KEY (instance, organization_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (instance, user_id, organization_id);
CREATE INDEX memberships_to_look_up ON memberships (instance, organization_id, user_id)
  WHERE look_up = 1;
CREATE INDEX memberships_buried ON memberships (instance, touched_ms) WHERE live = 0;

-- The newest position of each instance's feed, and the newest that is no longer kept.
CREATE TABLE feeds (
  instance TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  position BIGINT NOT NULL,
  gone BIGINT NOT NULL
);

CREATE TABLE changes (
  instance TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  kind TEXT NOT NULL,
  user_id TEXT, organization_id TEXT, session_id TEXT, role TEXT, not_before_ms BIGINT,
  cause TEXT,
  at_ms BIGINT NOT NULL,
  recorded_ms BIGINT NOT NULL,
  PRIMARY KEY (instance, position)
);

CREATE TABLE revocations (
  instance TEXT COLLATE "C" NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  not_before_ms BIGINT,
  cause TEXT,
  recorded_ms BIGINT NOT NULL,
  PRIMARY KEY (instance, kind, subject)
);
CREATE INDEX revocations_by_age ON revocations (instance, recorded_ms);

CREATE TABLE inbox (
  sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  instance TEXT COLLATE "C" NOT NULL,
  message_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  entity TEXT,
  at_ms BIGINT NOT NULL,
  received_ms BIGINT NOT NULL,
  body BYTEA,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'done', 'poison')),
  fence BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  next_attempt_ms BIGINT NOT NULL,
  done_ms BIGINT,
  failure TEXT,
  UNIQUE (instance, message_id)
);
CREATE INDEX inbox_open ON inbox (instance, sequence) WHERE state IN ('waiting', 'claimed');
CREATE INDEX inbox_open_by_entity ON inbox (instance, entity, sequence)
  WHERE state IN ('waiting', 'claimed');
CREATE INDEX inbox_by_state ON inbox (instance, state, sequence);
CREATE INDEX inbox_done ON inbox (instance, done_ms) WHERE state = 'done';

CREATE TABLE leases (
  instance TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  holder TEXT NOT NULL,
  term BIGINT NOT NULL,
  until_ms BIGINT NOT NULL,
  PRIMARY KEY (instance, name)
);

CREATE TABLE checkpoints (
  instance TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  value TEXT NOT NULL,
  updated_ms BIGINT NOT NULL,
  PRIMARY KEY (instance, name)
);

CREATE TABLE used_once (
  instance TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  expires_ms BIGINT NOT NULL,
  PRIMARY KEY (instance, id)
);
CREATE INDEX used_once_by_expiry ON used_once (instance, expires_ms);

CREATE TABLE key_snapshots (
  instance TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  issuer TEXT NOT NULL,
  fetched_ms BIGINT NOT NULL,
  document BYTEA NOT NULL
);
