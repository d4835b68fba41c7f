-- Every table: the columns that are asked for, and `document`, the whole record as JSON (store/codec.py).
-- Instants in columns are microseconds since 1970 (UTC), so that they sort and compare as numbers.

-- Proof that the database can be written now (Store.check).
CREATE TABLE health (one INTEGER PRIMARY KEY CHECK (one = 1), checks INTEGER NOT NULL);
INSERT INTO health VALUES (1, 0);

-- Every hospital that has patients or rounds; `revision` grows with every change to its patients.
CREATE TABLE hospitals (id TEXT PRIMARY KEY, revision INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;

-- The roster. `hours` is a bit set of schedule hours; `own_times` says that the patient has times of their own.
CREATE TABLE patients (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    phone TEXT,
    hours INTEGER NOT NULL,
    own_times INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);

-- Numbers, and patients, that asked not to be phoned. `patient_id` is '' when the speaker was not the patient.
CREATE TABLE do_not_call (
    hospital_id TEXT NOT NULL,
    phone TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, phone, patient_id)
) WITHOUT ROWID;
CREATE INDEX do_not_call_of_patient ON do_not_call (hospital_id, patient_id) WHERE patient_id <> '';

CREATE TABLE rounds (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);
CREATE INDEX rounds_by_window ON rounds (hospital_id, window_start);
CREATE INDEX rounds_unclosed ON rounds (window_start) WHERE closed = 0;

CREATE TABLE executions (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);
CREATE INDEX executions_by_time ON executions (hospital_id, received_at);

-- The ledger: one call per patient and round (invariant 3).
CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    hospital_id TEXT NOT NULL,
    round_id TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX one_call_per_patient_and_round ON calls (hospital_id, round_id, patient_id);
CREATE INDEX calls_of_round ON calls (hospital_id, round_id, id, state);
CREATE INDEX calls_counted ON calls (hospital_id, round_id, state, outcome, reason);

-- Diallings. The two partial indexes are the last guard of invariant 1.
CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    hospital_id TEXT NOT NULL,
    call_id TEXT NOT NULL REFERENCES calls (id),
    patient_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    phone TEXT NOT NULL,
    state TEXT NOT NULL,
    call_sid TEXT,
    intended_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX one_attempt_per_number ON attempts (call_id, number);
CREATE UNIQUE INDEX one_attempt_per_call_sid ON attempts (call_sid) WHERE call_sid IS NOT NULL;
CREATE UNIQUE INDEX one_open_attempt_per_patient ON attempts (hospital_id, patient_id) WHERE state <> 'ended';
CREATE UNIQUE INDEX one_open_attempt_per_phone ON attempts (phone) WHERE state <> 'ended';
CREATE INDEX attempts_open ON attempts (intended_at) WHERE state <> 'ended';

-- Structured results of conversations; the id is the attempt's.
CREATE TABLE check_ins (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);

-- Telephone contacts; the id is the attempt's.
CREATE TABLE interactions (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    round_id TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);
CREATE INDEX interactions_of_patient ON interactions (hospital_id, patient_id, started_at);
CREATE INDEX interactions_of_round ON interactions (hospital_id, round_id, started_at);

CREATE TABLE alerts (
    hospital_id TEXT NOT NULL,
    id TEXT NOT NULL,
    round_id TEXT NOT NULL,
    open INTEGER NOT NULL,
    raised_at INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (hospital_id, id)
);
CREATE INDEX alerts_by_time ON alerts (hospital_id, raised_at);
CREATE INDEX alerts_open ON alerts (hospital_id, raised_at) WHERE open = 1;

-- The embedded task queue. `deliveries` counts those begun; `delivering` marks one that is under way;
-- `dead_at` one that was given up.
CREATE TABLE tasks (
    sequence INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    body TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    delivering INTEGER NOT NULL DEFAULT 0,
    dead_at INTEGER
);
CREATE UNIQUE INDEX one_task_per_name ON tasks (queue, name);
CREATE INDEX tasks_waiting ON tasks (queue, due_at, sequence) WHERE delivering = 0 AND dead_at IS NULL;
CREATE INDEX tasks_delivering ON tasks (queue) WHERE delivering = 1;
CREATE INDEX tasks_dead ON tasks (dead_at) WHERE dead_at IS NOT NULL;
