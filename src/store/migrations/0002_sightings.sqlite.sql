-- What a reconciliation has come across: a row for each entity, until the run has ended. A user or
-- an organization has no second id.
CREATE TABLE sightings (
  instance TEXT NOT NULL,
  run_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  first_id TEXT NOT NULL,
  second_id TEXT NOT NULL,
  gone INTEGER NOT NULL,
  PRIMARY KEY (instance, run_ms, kind, first_id, second_id)
) STRICT, WITHOUT ROWID;
