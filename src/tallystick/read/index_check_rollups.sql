-- How stored roll-ups in the index attached as `saved` are compared with what the log comes to.

-- name: tables
-- What was counted again, as `cell` of index.sql has it; and, of records that were pruned, what they came to by type
-- and quarter of an hour, each with the position at which that was sealed.
CREATE TEMP TABLE counted_cell (
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
CREATE TEMP TABLE sealed_tally (
    sealed_at INTEGER NOT NULL,
    quarter   INTEGER NOT NULL,
    type      TEXT    NOT NULL,
    count     INTEGER NOT NULL
) STRICT;

-- name: strays
SELECT DISTINCT rollup FROM saved.cell WHERE rollup NOT IN (SELECT name FROM saved.rollup) LIMIT 10;

-- name: cells
-- Cells that differ, as they are and as they were counted.
SELECT found.rollup, found.bucket, found.cell_group,
    found.count, found.numbers, found.total, found.least, found.most,
    counted.count, counted.numbers, counted.total, counted.least, counted.most
FROM saved.cell AS found
LEFT JOIN temp.counted_cell AS counted USING (rollup, bucket, cell_group)
WHERE found.count IS NOT counted.count OR found.numbers IS NOT counted.numbers OR found.total IS NOT counted.total
    OR found.least IS NOT counted.least OR found.most IS NOT counted.most
UNION ALL
SELECT counted.rollup, counted.bucket, counted.cell_group,
    NULL, NULL, NULL, NULL, NULL, counted.count, counted.numbers, counted.total, counted.least, counted.most
FROM temp.counted_cell AS counted
WHERE NOT EXISTS (
    SELECT 1 FROM saved.cell AS found
    WHERE (found.rollup, found.bucket, found.cell_group) = (counted.rollup, counted.bucket, counted.cell_group)
);
