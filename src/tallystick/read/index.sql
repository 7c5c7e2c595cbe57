-- The index of one ledger. Derived: it may be deleted at any time and is rebuilt from the log.
-- user_version is the number of this layout; an index of another number is rebuilt.
PRAGMA user_version = 1;

-- One row: up to where the log was read, the hash of the last record read, and of the ledger's genesis.
CREATE TABLE cursor (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    position  INTEGER NOT NULL,
    last_hash BLOB    NOT NULL,
    ledger_id BLOB    NOT NULL
) STRICT;

-- The present version of every entity.
CREATE TABLE entity (
    id      TEXT    PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Event ids that callers brought, by the first 8 bytes of their SHA-256; two ids may share a hash.
CREATE TABLE brought (
    hash     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (hash, position)
) STRICT, WITHOUT ROWID;

-- Event ids that we made: runs in which counter and position grow together.
CREATE TABLE made (
    prefix   TEXT    NOT NULL,
    counter  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (prefix, counter, position)
) STRICT, WITHOUT ROWID;
