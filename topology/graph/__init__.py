"""The fleet as a graph: hosts, bridges, uplinks, tunnels, guests, vNICs and networks; exports, queries, a drawing."""
