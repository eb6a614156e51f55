-- The private keys that sign what upstreams are told of who sends a request. Of a generation there is
-- one, whichever replica made it.
CREATE TABLE upstream_keys (
  generation INTEGER NOT NULL,
  signs_from_ms INTEGER NOT NULL,
  private_key BLOB NOT NULL,
  PRIMARY KEY (generation)
) STRICT, WITHOUT ROWID;
