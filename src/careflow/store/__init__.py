"""The ledger and the roster: implementations of `careflow.ports.Store`."""
