"""Traces: what the flows that switches really have do with a packet, hop by hop and table by table."""
