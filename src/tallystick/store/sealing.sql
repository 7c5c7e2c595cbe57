-- What the sealer has to know of the past: see tallystick.write.runs. Derived: it may be deleted at any time and is
-- rebuilt from the log. Every row proves itself by a MAC, and none is believed without.
PRAGMA user_version = 1;

-- One row: the manifest, which says what the pages are.
CREATE TABLE manifest (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    content BLOB    NOT NULL
) STRICT;

-- id = number of the run << 32 | number of the page
CREATE TABLE page (
    id      INTEGER PRIMARY KEY,
    content BLOB    NOT NULL
) STRICT;
