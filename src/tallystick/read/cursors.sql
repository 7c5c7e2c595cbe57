-- How far readers have come, one file a ledger. Derived but for the cursors of subscriptions: without them
-- delivery begins again, as at least once allows. Tables that projections make for themselves lie beside these.
-- after is the root, in hex, of the tree of the records below the cursor; empty where there are none.
-- mac is over the rest of a row, under a key of the ledger; null where whoever wrote it had no keys.
PRAGMA user_version = 3;

CREATE TABLE tallystick_ledger (id BLOB NOT NULL) STRICT;

-- Projections: the state up to the cursor. Of another version it begins anew.
CREATE TABLE tallystick_projection (
    name     TEXT    PRIMARY KEY,
    version  INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    state    TEXT,
    paused   INTEGER NOT NULL DEFAULT 0,
    problem  TEXT,
    after    TEXT    NOT NULL,
    mac      BLOB
) STRICT, WITHOUT ROWID;

-- Subscriptions: every record below the cursor was acknowledged.
CREATE TABLE tallystick_subscription (
    name   TEXT    PRIMARY KEY,
    cursor INTEGER NOT NULL,
    after  TEXT    NOT NULL,
    mac    BLOB
) STRICT, WITHOUT ROWID;
