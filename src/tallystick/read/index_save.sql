-- How records become rows: each statement takes all records of a batch at once, so that SQLite works without
-- the interpreter's lock (docs/adr/0004). Run in this order, in one transaction. CROSS JOIN keeps SQLite from
-- beginning with the large table.

-- name: staging
CREATE TEMP TABLE IF NOT EXISTS incoming (
    position INTEGER PRIMARY KEY,
    type     TEXT    NOT NULL,
    entity   TEXT    NOT NULL,
    actor    TEXT,
    recorded INTEGER NOT NULL,
    claimed  TEXT,
    labels   TEXT,
    payload  TEXT    NOT NULL,
    context  TEXT
) STRICT;

-- name: clear
DELETE FROM temp.incoming;

-- name: stage
-- ?1: the records as one JSON array; ?2: the position that the index has reached.
INSERT INTO temp.incoming
SELECT
    value ->> 'position',
    value ->> 'event_type',
    value ->> 'entity_id',
    value ->> '$.actor.id',
    unixepoch(substr(value ->> 'recorded_at', 1, 19)) * 1000000 + substr(value ->> 'recorded_at', 21, 6),
    value ->> 'occurred_at',
    nullif(value ->> 'labels', '[]'),
    value ->> 'payload',
    nullif(value ->> 'context', '{}')
FROM jsonb_each(CAST(?1 AS TEXT))
WHERE value ->> 'position' >= ?2;

-- name: entities
INSERT OR IGNORE INTO main.entity (name)
SELECT DISTINCT entity FROM temp.incoming;

-- name: terms
INSERT OR IGNORE INTO main.term (kind, name)
SELECT DISTINCT 'type', type FROM temp.incoming
UNION ALL
SELECT DISTINCT 'actor', actor FROM temp.incoming WHERE actor IS NOT NULL
UNION ALL
SELECT DISTINCT 'label', value FROM temp.incoming, json_each(labels) WHERE labels IS NOT NULL;

-- name: events
-- A claimed time has any zone and up to nine digits of a second; those past the sixth are dropped.
INSERT INTO main.event
SELECT
    position,
    type.id,
    entity.id,
    actor.id,
    recorded,
    CASE WHEN claimed IS NULL THEN recorded ELSE
        (
            unixepoch(substr(claimed, 1, 10) || ' ' || substr(claimed, 12, 8))
            - CASE WHEN claimed GLOB '*[Zz]' THEN 0 ELSE
                (substr(claimed, -6, 1) || '1') * (substr(claimed, -5, 2) * 3600 + substr(claimed, -2) * 60)
            END
        ) * 1000000
        + CASE WHEN claimed NOT LIKE '___________________.%' THEN 0 ELSE
            CAST(substr(
                substr(claimed, 21, length(claimed) - 20 - CASE WHEN claimed GLOB '*[Zz]' THEN 1 ELSE 6 END) || '00000', 1, 6
            ) AS INTEGER)
        END
    END
FROM temp.incoming
CROSS JOIN main.term AS type ON type.kind = 'type' AND type.name = incoming.type
CROSS JOIN main.entity ON entity.name = incoming.entity
LEFT JOIN main.term AS actor ON actor.kind = 'actor' AND actor.name = incoming.actor
ORDER BY position;

-- name: labels
INSERT OR IGNORE INTO main.label
SELECT term.id, position
FROM temp.incoming
CROSS JOIN json_each(labels)
CROSS JOIN main.term ON term.kind = 'label' AND term.name = json_each.value
WHERE labels IS NOT NULL;

-- name: postings
-- Plain JSON text splits into the same words as what it stands for; text with escapes, or with characters that
-- FTS5 may see otherwise than we do, is gone over first.
INSERT INTO main.posting (rowid, words)
SELECT
    event.position,
    CASE WHEN instr(payload, '\') OR length(payload) <> octet_length(payload)
        THEN searchable(payload) ELSE payload END
    || CASE WHEN context IS NULL THEN '' ELSE ' ' || searchable(context) END
    || ' ' || char(1) || 't' || event.type || ' ' || char(1) || 'e' || event.entity
    || CASE WHEN event.actor IS NULL THEN '' ELSE ' ' || char(1) || 'a' || event.actor END
    || CASE WHEN labels IS NULL THEN '' ELSE (
        SELECT group_concat(' ' || char(1) || 'l' || term.id, '')
        FROM json_each(labels)
        CROSS JOIN main.term ON term.kind = 'label' AND term.name = json_each.value
    ) END
FROM temp.incoming
CROSS JOIN main.event ON event.position = incoming.position
ORDER BY incoming.position;

-- name: tallies
INSERT INTO main.tally
SELECT recorded / 3600000000, type, recorded / 900000000, count(*) FROM main.event WHERE position >= ?1 AND position < ?2
GROUP BY 1, 2, 3
ON CONFLICT DO UPDATE SET count = count + excluded.count;

-- name: has_type
SELECT 1 FROM temp.incoming WHERE type = ?1 LIMIT 1;

-- Where the clock is corrected (SPEC 5.9): records before ?2 count as no later than ?3, in microseconds.

-- name: moved_from
SELECT coalesce(
    (SELECT position + 1 FROM main.event WHERE position < ?2 AND recorded <= ?3 ORDER BY position DESC LIMIT 1), 0
);

-- name: move_tally
-- Nothing that was counted so far is later, be it gone by now.
INSERT INTO main.tally
SELECT ?3 / 3600000000, type, ?3 / 900000000, sum(count) FROM main.tally WHERE hour >= ?3 / 3600000000 AND quarter > ?3 / 900000000
GROUP BY type
ON CONFLICT DO UPDATE SET count = count + excluded.count;

-- name: clear_tally
DELETE FROM main.tally WHERE hour >= ?3 / 3600000000 AND quarter > ?3 / 900000000;

-- name: correct
-- What claims the very time of its sealing claims none.
UPDATE main.event SET occurred = CASE occurred WHEN recorded THEN ?3 ELSE occurred END, recorded = ?3
WHERE position >= ?1 AND position < ?2;

-- name: recount_cells
-- Roll-ups count what is there anew, and take over what was sealed of what is gone.
DELETE FROM main.cell;

-- name: recount
DELETE FROM main.rollup;

-- name: cursor
INSERT OR REPLACE INTO main.cursor VALUES (1, ?1, ?2, ?3);
