"""What CareFlow Pulse costs on this machine, beside its peers: `make bench`, or `python -m bench --help`.

Figures are printed, never asserted: a test must not depend on how busy a machine is.
"""
