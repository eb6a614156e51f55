-- The private keys that sign what upstreams are told of who sends a request. Of a generation there is
-- one, whichever replica made it.
CREATE TABLE upstream_keys (
  generation BIGINT NOT NULL,
  signs_from_ms BIGINT NOT NULL,
  private_key BYTEA NOT NULL,
  PRIMARY KEY (generation)
);
