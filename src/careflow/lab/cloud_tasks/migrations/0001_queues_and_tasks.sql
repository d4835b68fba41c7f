-- What the lab's Cloud Tasks keeps. `document` is the whole record as JSON (store/codec.py); instants in columns are
-- microseconds since 1970 (UTC). All names are full ones, `projects/P/locations/L/queues/Q/tasks/T`.

-- Proof that the database can be written now.
CREATE TABLE health (one INTEGER PRIMARY KEY CHECK (one = 1), checks INTEGER NOT NULL);
INSERT INTO health VALUES (1, 0);

CREATE TABLE queues (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;

-- `dispatching`: an attempt is under way. `forced`: RunTask asked for it, whatever the limits say.
CREATE TABLE tasks (
    sequence INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    due_at INTEGER NOT NULL,
    dispatching INTEGER NOT NULL DEFAULT 0,
    forced INTEGER NOT NULL DEFAULT 0,
    document TEXT NOT NULL
);
CREATE INDEX tasks_due ON tasks (queue, dispatching, due_at, sequence);
CREATE INDEX tasks_forced ON tasks (forced) WHERE forced = 1;

-- Names of queues and tasks that are gone, and until when they cannot be used again.
CREATE TABLE gone (name TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX gone_until ON gone (until);
