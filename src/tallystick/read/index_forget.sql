-- What becomes of rows whose records were pruned: run in this order, in one transaction.

-- name: gone
CREATE TEMP TABLE IF NOT EXISTS gone (position INTEGER PRIMARY KEY) STRICT;

-- name: clear
DELETE FROM temp.gone;

-- name: find
-- ?1: ranges of positions at which there are no records, as a JSON array of pairs.
INSERT INTO temp.gone
SELECT event.position
FROM json_each(?1)
CROSS JOIN main.event ON event.position >= value ->> 0 AND event.position < value ->> 1;

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

-- name: mark
INSERT OR REPLACE INTO main.forgotten VALUES (1, ?1);
