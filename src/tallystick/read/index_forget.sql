-- What becomes of rows whose records were pruned: run in this order, in one transaction.

-- name: tables
CREATE TEMP TABLE IF NOT EXISTS absent (first INTEGER PRIMARY KEY, end INTEGER NOT NULL) STRICT;
CREATE TEMP TABLE IF NOT EXISTS gone (position INTEGER PRIMARY KEY) STRICT;
CREATE VIRTUAL TABLE IF NOT EXISTS temp.posted USING fts5vocab(main, posting, instance);

-- name: clear
DELETE FROM temp.absent;
DELETE FROM temp.gone;

-- name: ranges
-- ?1: ranges of positions at which there are no records, as a JSON array of pairs.
INSERT INTO temp.absent SELECT value ->> 0, value ->> 1 FROM json_each(?1);

-- name: find
INSERT INTO temp.gone
SELECT position FROM temp.absent CROSS JOIN main.event ON position >= first AND position < absent.end;

-- name: labels
DELETE FROM main.label WHERE position IN (SELECT position FROM temp.gone);

-- name: postings
DELETE FROM main.posting WHERE rowid IN (SELECT position FROM temp.gone);

-- name: events
DELETE FROM main.event WHERE position IN (SELECT position FROM temp.gone);

-- name: entities
-- An entity without records is one that the ledger does not know: its stream would begin anew at 1.
DELETE FROM main.entity WHERE id NOT IN (SELECT entity FROM main.event);

-- name: actors
DELETE FROM main.term
WHERE kind = 'actor' AND id NOT IN (SELECT actor FROM main.event WHERE actor IS NOT NULL);

-- name: unused labels
DELETE FROM main.term WHERE kind = 'label' AND id NOT IN (SELECT label FROM main.label);

-- name: snapshots
DELETE FROM main.snapshot;
DELETE FROM main.declared;

-- name: merge
-- Deleted postings are only marked; merged into one, the lists are written without them.
INSERT INTO main.posting (posting) VALUES ('optimize');

-- name: left
-- Words that could not be deleted: FTS5 looks for them where rows beside the lists say that they are.
SELECT EXISTS (
    SELECT 1 FROM temp.posted
    WHERE (SELECT doc < absent.end FROM temp.absent WHERE first <= doc ORDER BY first DESC LIMIT 1)
);

-- name: mark
INSERT OR REPLACE INTO main.forgotten VALUES (1, ?1);
