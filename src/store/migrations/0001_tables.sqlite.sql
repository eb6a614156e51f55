-- What is known of an entity as far as ordering goes stands in the same columns of each of the three
-- tables: version_ms, as_of_ms (NULL: an event said it), digest, doubtful, deleted_ms, absent_ms,
-- confirmed_ms, seen_ms; live and look_up follow from them, for indexes. The others are NULL once a
-- deletion has taken the content. Times are Unix milliseconds.

CREATE TABLE users (
  instance TEXT NOT NULL,
  id TEXT NOT NULL,
  version_ms INTEGER, as_of_ms INTEGER, digest BLOB, doubtful INTEGER NOT NULL,
  deleted_ms INTEGER, absent_ms INTEGER, confirmed_ms INTEGER, seen_ms INTEGER,
  live INTEGER NOT NULL, look_up INTEGER NOT NULL, touched_ms INTEGER NOT NULL,
  external_id TEXT, username TEXT, first_name TEXT, last_name TEXT, image_url TEXT,
  emails TEXT, banned INTEGER, locked INTEGER, deprovisioned INTEGER,
  public_metadata TEXT, created_ms INTEGER, last_sign_in_ms INTEGER, source TEXT,
  PRIMARY KEY (instance, id)
) STRICT;
CREATE INDEX users_by_external_id ON users (instance, external_id) WHERE live = 1;
CREATE INDEX users_to_look_up ON users (instance, id) WHERE look_up = 1;
CREATE INDEX users_buried ON users (instance, touched_ms) WHERE live = 0;

-- One row for each verified address of a user that is there.
CREATE TABLE user_emails (
  instance TEXT NOT NULL,
  address TEXT NOT NULL,
  user_id TEXT NOT NULL,
  PRIMARY KEY (instance, address, user_id),
  FOREIGN KEY (instance, user_id) REFERENCES users (instance, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX user_emails_by_user ON user_emails (instance, user_id);

CREATE TABLE organizations (
  instance TEXT NOT NULL,
  id TEXT NOT NULL,
  version_ms INTEGER, as_of_ms INTEGER, digest BLOB, doubtful INTEGER NOT NULL,
  deleted_ms INTEGER, absent_ms INTEGER, confirmed_ms INTEGER, seen_ms INTEGER,
  live INTEGER NOT NULL, look_up INTEGER NOT NULL, touched_ms INTEGER NOT NULL,
  slug TEXT, name TEXT, image_url TEXT, public_metadata TEXT, created_ms INTEGER, source TEXT,
  PRIMARY KEY (instance, id)
) STRICT;
CREATE INDEX organizations_by_slug ON organizations (instance, slug) WHERE live = 1;
CREATE INDEX organizations_to_look_up ON organizations (instance, id) WHERE look_up = 1;
CREATE INDEX organizations_buried ON organizations (instance, touched_ms) WHERE live = 0;

CREATE TABLE memberships (
  instance TEXT NOT NULL,
  organization_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  version_ms INTEGER, as_of_ms INTEGER, digest BLOB, doubtful INTEGER NOT NULL,
  deleted_ms INTEGER, absent_ms INTEGER, confirmed_ms INTEGER, seen_ms INTEGER,
  live INTEGER NOT NULL, look_up INTEGER NOT NULL, touched_ms INTEGER NOT NULL,
  slug TEXT, role TEXT, permissions TEXT, standing TEXT, created_ms INTEGER, source TEXT,
  PRIMARY KEY (instance, organization_id, user_id)
) STRICT;
CREATE INDEX memberships_by_user ON memberships (instance, user_id, organization_id);
CREATE INDEX memberships_to_look_up ON memberships (instance, organization_id, user_id)
  WHERE look_up = 1;
CREATE INDEX memberships_buried ON memberships (instance, touched_ms) WHERE live = 0;

-- The newest position of each instance's feed, and the newest that is no longer kept.
CREATE TABLE feeds (
  instance TEXT NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL,
  gone INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
  instance TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  user_id TEXT, organization_id TEXT, session_id TEXT, role TEXT, not_before_ms INTEGER,
  cause TEXT,
  at_ms INTEGER NOT NULL,
  recorded_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
  instance TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  not_before_ms INTEGER,
  cause TEXT,
  recorded_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_by_age ON revocations (instance, recorded_ms);

CREATE TABLE inbox (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  instance TEXT NOT NULL,
  message_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  entity TEXT,
  at_ms INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  body BLOB,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'done', 'poison')),
  fence INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  next_attempt_ms INTEGER NOT NULL,
  done_ms INTEGER,
  failure TEXT,
  UNIQUE (instance, message_id)
) STRICT;
CREATE INDEX inbox_open ON inbox (instance, sequence) WHERE state IN ('waiting', 'claimed');
CREATE INDEX inbox_open_by_entity ON inbox (instance, entity, sequence)
  WHERE state IN ('waiting', 'claimed');
CREATE INDEX inbox_by_state ON inbox (instance, state, sequence);
CREATE INDEX inbox_done ON inbox (instance, done_ms) WHERE state = 'done';

CREATE TABLE leases (
  instance TEXT NOT NULL,
  name TEXT NOT NULL,
  holder TEXT NOT NULL,
  term INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
  instance TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  updated_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE used_once (
  instance TEXT NOT NULL,
  id TEXT NOT NULL,
  expires_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX used_once_by_expiry ON used_once (instance, expires_ms);

CREATE TABLE key_snapshots (
  instance TEXT NOT NULL PRIMARY KEY,
  issuer TEXT NOT NULL,
  fetched_ms INTEGER NOT NULL,
  document BLOB NOT NULL
) STRICT;
