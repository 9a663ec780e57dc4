"""One host's OVSDB: what it has of ours, what it should have, and the vNICs that are plugged into it."""
