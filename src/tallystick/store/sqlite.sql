-- The log of one ledger. Rows are only ever added; the triggers have SQLite itself refuse anything else. A lawful
-- prune takes the two triggers against deletion down and puts them back within its one transaction.
-- The application id is "TLST" in ASCII; user_version is the number of this layout.

PRAGMA application_id = 1414288212;
PRAGMA user_version = 2;

-- One row a record. bytes: the sealed canonical JSON. crc32: over bytes, so that bit rot shows as such.
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    bytes    BLOB    NOT NULL,
    crc32    INTEGER NOT NULL
) STRICT;

-- Full Merkle tiles: 256 hashes, and their root, which is one hash of the tile above.
-- number = level << 48 | index
CREATE TABLE tile (
    number INTEGER PRIMARY KEY,
    hashes BLOB NOT NULL CHECK (length(hashes) = 8192),
    root   BLOB NOT NULL CHECK (length(root) = 32)
) STRICT;

-- Of pruned records that no full tile covers: their leaf hashes, until there is one.
CREATE TABLE leaf (
    position INTEGER PRIMARY KEY,
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Up to where prunes went; below it records may be absent. One row, none before the first prune.
CREATE TABLE pruned (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    below INTEGER NOT NULL
) STRICT;

-- The newest commit, one row. Its size is what a commit compares and swaps.
CREATE TABLE head (
    id                INTEGER PRIMARY KEY CHECK (id = 1),
    size              INTEGER NOT NULL,
    checkpoint        BLOB    NOT NULL,
    epoch_at          INTEGER NOT NULL,
    checkpoint_key_at INTEGER NOT NULL,
    evidence_key_at   INTEGER NOT NULL
) STRICT;

CREATE TRIGGER record_no_update BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'records never change'); END;
CREATE TRIGGER record_no_delete BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END;
CREATE TRIGGER tile_no_update BEFORE UPDATE ON tile BEGIN SELECT RAISE(ABORT, 'tiles never change'); END;
CREATE TRIGGER tile_no_delete BEFORE DELETE ON tile BEGIN SELECT RAISE(ABORT, 'tiles are never deleted'); END;
CREATE TRIGGER leaf_no_update BEFORE UPDATE ON leaf BEGIN SELECT RAISE(ABORT, 'leaf hashes never change'); END;
CREATE TRIGGER leaf_no_delete BEFORE DELETE ON leaf BEGIN SELECT RAISE(ABORT, 'leaf hashes are never deleted'); END;
CREATE TRIGGER pruned_only_grows BEFORE UPDATE ON pruned WHEN new.below < old.below
    BEGIN SELECT RAISE(ABORT, 'what was pruned stays pruned'); END;
CREATE TRIGGER pruned_no_delete BEFORE DELETE ON pruned
    BEGIN SELECT RAISE(ABORT, 'what was pruned stays pruned'); END;
CREATE TRIGGER head_only_grows BEFORE UPDATE ON head WHEN new.size <= old.size
    BEGIN SELECT RAISE(ABORT, 'the head only grows'); END;
CREATE TRIGGER head_no_delete BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'the head is never deleted'); END;
