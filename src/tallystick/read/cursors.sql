-- How far readers have come, one file a ledger. Derived but for the cursors of subscriptions: without them
-- delivery begins anew, as at least once allows. Tables that projections make for themselves lie beside these.
PRAGMA user_version = 1;

CREATE TABLE tallystick_ledger (id BLOB NOT NULL) STRICT;

-- Projections: the state up to the cursor. Of another version it begins anew.
CREATE TABLE tallystick_projection (
    name     TEXT    PRIMARY KEY,
    version  INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    state    TEXT,
    paused   INTEGER NOT NULL DEFAULT 0,
    problem  TEXT
) STRICT, WITHOUT ROWID;

-- Subscriptions: every record below the cursor was acknowledged.
CREATE TABLE tallystick_subscription (
    name   TEXT    PRIMARY KEY,
    cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
