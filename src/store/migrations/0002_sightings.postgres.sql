-- What a reconciliation has come across: a row for each entity, until the run has ended. A user or
-- an organization has no second id.
CREATE TABLE sightings (
  instance TEXT COLLATE "C" NOT NULL,
  run_ms BIGINT NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  first_id TEXT COLLATE "C" NOT NULL,
  second_id TEXT COLLATE "C" NOT NULL,
  gone BIGINT NOT NULL,
  PRIMARY KEY (instance, run_ms, kind, first_id, second_id)
);
