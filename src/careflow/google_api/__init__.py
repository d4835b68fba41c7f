"""What the Google APIs that are imitated here have in common: Cloud Scheduler's, and in the lab Cloud Tasks'."""
