-- The index of one ledger. Derived: it may be deleted at any time and is rebuilt from the log.
-- user_version is the number of this layout; an index of another number is rebuilt.
PRAGMA user_version = 4;

-- One row: up to where the log was read, the hash of the last record read, and of the ledger's genesis.
CREATE TABLE cursor (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    position  INTEGER NOT NULL,
    last_hash BLOB    NOT NULL,
    ledger_id BLOB    NOT NULL
) STRICT;

-- One row: the position of the newest prune whose records were forgotten here.
CREATE TABLE forgotten (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    prune_at INTEGER NOT NULL
) STRICT;

-- Every entity. Its version is for the sealing index to know, as versions are sealed.
CREATE TABLE entity (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- Event types, actors and labels, so that rows stay narrow. kind: 'type', 'actor' or 'label'.
CREATE TABLE term (
    id   INTEGER PRIMARY KEY,
    kind TEXT    NOT NULL,
    name TEXT    NOT NULL,
    UNIQUE (kind, name)
) STRICT;

-- One row a record. recorded never falls as positions rise, so its ranges are ranges of positions.
-- occurred: what the caller claims, else recorded. Both in microseconds.
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    type     INTEGER NOT NULL,
    entity   INTEGER NOT NULL,
    actor    INTEGER,
    recorded INTEGER NOT NULL,
    occurred INTEGER NOT NULL
) STRICT;
CREATE INDEX event_occurred ON event (occurred);

CREATE TABLE label (
    label    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (label, position)
) STRICT, WITHOUT ROWID;

-- Posting lists, in FTS5 as it keeps and merges them well: every word of payload and context, and, behind a
-- character that no JSON text has raw (U+0001, shown here as ␁), e, t, a or l with the number of the entity, type, actor and label.
CREATE VIRTUAL TABLE posting USING fts5 (
    words,
    content = '', contentless_delete = 1, detail = none,
    tokenize = "unicode61 remove_diacritics 0 tokenchars '␁'"
);

-- Records a quarter of an hour and type; quarter = recorded / 900,000,000, and hour = quarter / 4: in this order,
-- hours are added up without sorting.
CREATE TABLE tally (
    hour    INTEGER NOT NULL,
    type    INTEGER NOT NULL,
    quarter INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (hour, type, quarter)
) STRICT, WITHOUT ROWID;

-- States of long streams, so that a fold need not begin at their beginning. The content says all of it again.
CREATE TABLE snapshot (
    entity      TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    fingerprint TEXT    NOT NULL,
    content     BLOB    NOT NULL,
    PRIMARY KEY (entity, version)
) STRICT, WITHOUT ROWID;

-- The declared folds and upcasters under which snapshots were made, so that a verification, which knows no
-- application, can fold again. The fingerprint is their SHA-256: no others can stand here in their place.
CREATE TABLE declared (
    fingerprint TEXT PRIMARY KEY,
    folds       BLOB NOT NULL,
    upcasters   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Roll-ups: each up to where it has counted. definition is the digest of what it counts, said at defined_at.
-- Cells sealed at positions below sealed_below are of records that were gone when it began: it takes them over.
CREATE TABLE rollup (
    name       TEXT    PRIMARY KEY,
    definition TEXT    NOT NULL,
    defined_at INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    sealed_below INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The cells of roll-ups. bucket is where it begins, in microseconds. cell_group is the type, actor, entity or label
-- that the cell counts, or ''. count: its records; numbers: what they have where the roll-up looks for numbers;
-- total: their sum, exact, an integer or, if not all are integers, a fraction n/d.
CREATE TABLE cell (
    rollup     TEXT    NOT NULL,
    bucket     INTEGER NOT NULL,
    cell_group TEXT    NOT NULL,
    count      INTEGER NOT NULL,
    numbers    INTEGER NOT NULL,
    total      TEXT    NOT NULL,
    least      ANY,
    most       ANY,
    PRIMARY KEY (rollup, bucket, cell_group)
) STRICT, WITHOUT ROWID;
