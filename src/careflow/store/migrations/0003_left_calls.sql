-- Open calls by the instant from which they are left to anybody: a lease's end, or else when they are due. NULL once they ended.
ALTER TABLE calls ADD COLUMN left_at INTEGER;
-- Documents have instants as text in UTC, with six digits of a second or none.
UPDATE calls SET left_at = (
    SELECT 1000000 * strftime('%s', substr(moment, 1, 19))
         + CASE substr(moment, 20, 1) WHEN '.' THEN CAST(substr(moment, 21, 6) AS INTEGER) ELSE 0 END
    FROM (SELECT coalesce(json_extract(document, '$.leaseUntil'), json_extract(document, '$.dueAt')) AS moment)
) WHERE state <> 'ended';
CREATE INDEX calls_left ON calls (hospital_id, round_id, left_at, id) WHERE left_at IS NOT NULL;
