"""The Caller Agent: makes one telephone attempt at a time per order, and holds the conversation."""
