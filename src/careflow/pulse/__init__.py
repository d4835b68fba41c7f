"""The Pulse agent: plans rounds, holds calls, closes rounds. Never imports `careflow.caller`."""
