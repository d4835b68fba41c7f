-- The embedded scheduler. `document` is the user's job, `progress` what the engine made of it, both as JSON (scheduler/store.py).
-- Instants in columns are microseconds since 1970 (UTC).

-- `wake_at` is when the engine has something to do; NULL while it has not.
CREATE TABLE scheduler_jobs (
    name TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    wake_at INTEGER,
    document TEXT NOT NULL,
    progress TEXT NOT NULL
);
CREATE INDEX scheduler_jobs_by_parent ON scheduler_jobs (parent, name);
CREATE INDEX scheduler_jobs_due ON scheduler_jobs (wake_at) WHERE wake_at IS NOT NULL;

-- History, kept when the job is deleted. An attempt is here before its request is sent; `finished_at` is NULL while it is under way.
CREATE TABLE scheduler_attempts (
    sequence INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    url TEXT NOT NULL,
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX one_scheduler_attempt_per_number ON scheduler_attempts (execution_id, number);
CREATE INDEX scheduler_attempts_of_job ON scheduler_attempts (job, sequence);
CREATE INDEX scheduler_attempts_under_way ON scheduler_attempts (job) WHERE finished_at IS NULL;
CREATE INDEX scheduler_attempts_by_age ON scheduler_attempts (started_at);

-- Log entries in Cloud Logging's shape.
CREATE TABLE scheduler_log (
    sequence INTEGER PRIMARY KEY,
    parent TEXT NOT NULL,
    job TEXT NOT NULL,
    written_at INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX scheduler_log_of_parent ON scheduler_log (parent, sequence);
CREATE INDEX scheduler_log_of_job ON scheduler_log (job, sequence);
CREATE INDEX scheduler_log_by_age ON scheduler_log (written_at);
