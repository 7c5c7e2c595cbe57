-- How the index that rests in a file, attached as `saved`, is compared with what the log says. `main` is an index in
-- memory, filled from the records of one range; ?1 and ?2 are the range. Each gives positions, or names, that differ.

-- name: names
-- The numbers that the saved index has for names, so that rows and posting lists can be compared as they are.
INSERT INTO main.entity (id, name)
SELECT id, name FROM (SELECT DISTINCT entity FROM temp.incoming) CROSS JOIN saved.entity ON name = entity;

-- name: terms
INSERT INTO main.term (id, kind, name)
SELECT term.id, term.kind, term.name FROM (
    SELECT DISTINCT 'type' AS kind, type AS name FROM temp.incoming
    UNION ALL
    SELECT DISTINCT 'actor', actor FROM temp.incoming WHERE actor IS NOT NULL
    UNION
    SELECT 'label', value FROM temp.incoming, json_each(labels) WHERE labels IS NOT NULL
) AS wanted
CROSS JOIN saved.term ON term.kind = wanted.kind AND term.name = wanted.name;

-- name: corrections
SELECT position FROM saved.event WHERE type = (SELECT id FROM saved.term WHERE kind = 'type' AND name = ?1)
ORDER BY position;

-- name: rows
SELECT position FROM (
    SELECT * FROM (
        SELECT position, type.name, entity.name, actor.name, event.actor IS NULL, recorded, occurred
        FROM main.event
        CROSS JOIN main.term AS type ON type.id = type
        CROSS JOIN main.entity AS entity ON entity.id = entity
        LEFT JOIN main.term AS actor ON actor.id = actor
        EXCEPT
        SELECT position, type.name, entity.name, actor.name, event.actor IS NULL, recorded, occurred
        FROM saved.event
        CROSS JOIN saved.term AS type ON type.id = type AND type.kind = 'type'
        CROSS JOIN saved.entity AS entity ON entity.id = entity
        LEFT JOIN saved.term AS actor ON actor.id = actor AND actor.kind = 'actor'
        WHERE position >= ?1 AND position < ?2
    )
    UNION
    SELECT position, 0, 0, 0, 0, 0, 0 FROM saved.event
    WHERE position >= ?1 AND position < ?2 AND position NOT IN (SELECT position FROM main.event)
)
ORDER BY position;

-- name: labels
SELECT DISTINCT position FROM (
    SELECT * FROM (
        SELECT label.position, term.name FROM main.label CROSS JOIN main.term ON term.id = label
        EXCEPT
        SELECT label.position, term.name FROM saved.term
        CROSS JOIN saved.label ON label.label = term.id AND label.position >= ?1 AND label.position < ?2
        WHERE term.kind = 'label'
    )
    UNION
    SELECT * FROM (
        SELECT label.position, term.name FROM saved.term
        CROSS JOIN saved.label ON label.label = term.id AND label.position >= ?1 AND label.position < ?2
        EXCEPT
        SELECT label.position, term.name FROM main.label CROSS JOIN main.term ON term.id = label
    )
)
ORDER BY position;

-- name: clear
DELETE FROM main.event;
DELETE FROM main.label;
DELETE FROM main.entity;
DELETE FROM main.term;
DELETE FROM main.tally;
INSERT INTO main.posting (posting) VALUES ('delete-all');

-- name: stray
-- Rows outside of what the index says that it has read.
SELECT position FROM saved.event WHERE position < 0
UNION ALL
SELECT position FROM saved.event WHERE position >= ?1
UNION ALL
SELECT position FROM saved.label
WHERE position < 0 OR position >= ?1 OR label NOT IN (SELECT id FROM saved.term WHERE kind = 'label')
UNION ALL
-- Where FTS5 keeps which rows there are; without one its posting can never be forgotten.
SELECT * FROM (SELECT id FROM saved.posting_docsize EXCEPT SELECT position FROM saved.event)
UNION ALL
SELECT * FROM (SELECT position FROM saved.event EXCEPT SELECT id FROM saved.posting_docsize)
LIMIT 10;

-- name: lookups
-- Words that are in the posting lists, and are not found when they are looked up, as a query does.
SELECT count(*) FROM temp.every_word AS word
WHERE NOT EXISTS (SELECT 1 FROM temp.looked_up AS found WHERE found.term = word.term AND found.doc = word.doc);

-- name: unused
-- Names that no record has, which lists of names would show.
SELECT name FROM (SELECT id, name FROM saved.entity WHERE id IN (
    SELECT id FROM saved.entity EXCEPT SELECT entity FROM saved.event
))
UNION ALL
SELECT name FROM saved.term WHERE kind = 'type' AND id IN (
    SELECT id FROM saved.term EXCEPT SELECT type FROM saved.event EXCEPT SELECT type FROM saved.tally
)
UNION ALL
SELECT name FROM saved.term WHERE kind = 'actor' AND id IN (SELECT id FROM saved.term EXCEPT SELECT actor FROM saved.event)
UNION ALL
SELECT name FROM saved.term WHERE kind = 'label' AND id IN (SELECT id FROM saved.term EXCEPT SELECT label FROM saved.label)
UNION ALL
SELECT name FROM saved.term WHERE kind NOT IN ('type', 'actor', 'label')
LIMIT 10;

-- name: tallies
-- Counts by quarter of an hour and type. Of what was pruned since the index began they stay, and are those that were
-- sealed. ?1: up to which quarter there may be others, which were pruned and not sealed.
WITH counted AS (
    SELECT hour, type, quarter, sum(count) AS count FROM (
        SELECT recorded / 3600000000 AS hour, type, recorded / 900000000 AS quarter, count(*) AS count
        FROM saved.event GROUP BY 1, 2, 3
        UNION ALL
        SELECT quarter / 4, coalesce(term.id, -1), quarter, count FROM temp.sealed_tally AS sealed
        LEFT JOIN saved.term ON term.kind = 'type' AND term.name = sealed.type
    ) GROUP BY 1, 2, 3
)
SELECT quarter FROM counted
LEFT JOIN saved.tally USING (hour, type, quarter)
WHERE tally.count IS NULL OR tally.count < counted.count OR (tally.count <> counted.count AND quarter > ?1)
UNION ALL
SELECT quarter FROM saved.tally
WHERE quarter > ?1 AND (hour, type, quarter) NOT IN (SELECT hour, type, quarter FROM counted)
UNION
-- No record is older than the first, which is never pruned.
SELECT quarter FROM saved.tally
WHERE hour <> quarter / 4 OR count < 1 OR type NOT IN (SELECT id FROM saved.term WHERE kind = 'type')
    OR quarter < (SELECT recorded / 900000000 FROM saved.event WHERE position = 0)
LIMIT 10;

-- name: chances
-- The random numbers by which sets of positions are told apart: ?1 is a JSON array of them.
INSERT INTO temp.chance SELECT key, value FROM json_each(?1);

-- name: prints
-- One number for each word, over the positions at which it stands. Two different sets have the same one by chance
-- only, with a probability below 2 / 2147483647, as the numbers are drawn anew for every check. A position that the
-- numbers do not reach counts as well: none may be there.
SELECT term, count(*), coalesce(sum(low.value * high.value % 2147483647), 0)
FROM temp.words
LEFT JOIN temp.chance AS low ON low.id = doc & 65535
LEFT JOIN temp.chance AS high ON high.id = 65536 + (doc >> 16)
GROUP BY term;

-- name: there
-- Of the words of an index that has not forgotten a prune: those at positions that have a record.
WHERE coalesce((SELECT doc >= absent.end FROM temp.absent WHERE first <= doc ORDER BY first DESC LIMIT 1), 1)

