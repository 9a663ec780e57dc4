"""Every metric that ``GET /metrics`` tells.

The number of series grows with hosts and BGP peers alone: no guest, vNIC, address or path that somebody asked for is
in a label.
"""

from __future__ import annotations

from controller.api.exposition import Metric

STATES = ("up", "degraded", "down")

BUILD = Metric("fleetswitch_build_info", "gauge", "Always 1; the version that runs", ("version",))
STORE_UP = Metric("fleetswitch_store_up", "gauge", "1 while the store is reached")
STORE_SKIPPED = Metric(
    "fleetswitch_store_skipped_rows", "gauge", "Rows of the store that make no sense and are skipped"
)
CHANGES = Metric("fleetswitch_changes_total", "counter", "Changes of rows, observations included, since the start")
FAULTS = Metric(
    "fleetswitch_faults", "gauge", "Parts of the pipeline that could not be computed; a fault of the program"
)
LATENESS = Metric("fleetswitch_loop_lag_seconds", "histogram", "How late the controller's loop came to what was due")
EVENTS = Metric("fleetswitch_events_total", "counter", "Events since the start, those that were too many to be told "
                "among them", ("kind", "event"))  # fmt: skip
OBJECTS = Metric(
    "fleetswitch_objects", "gauge", "Objects in the store; Ports are registered or observed vNICs", ("kind",)
)
VNICS = Metric("fleetswitch_vnics", "gauge", "vNICs by their state, those that are registered and absent included",
               ("state",))  # fmt: skip
STRANGERS = Metric("fleetswitch_unknown_switches", "gauge", "Switches that were turned away and did not come in since")
CONNECTION = Metric("fleetswitch_host_connection", "gauge", "1 for the state that a host's connection has, 0 for the "
                    "others; connecting and hung are down", ("host", "connection", "state"))  # fmt: skip
FLOWS_WANTED = Metric("fleetswitch_host_flows_wanted", "gauge", "Flows that a host should have", ("host",))
FLOWS_INSTALLED = Metric("fleetswitch_host_flows_installed", "gauge", "Flows of fleetswitch that a host's switch has, "
                         "0 while it is not connected", ("host",))  # fmt: skip
FLOWS_REFUSED = Metric("fleetswitch_host_flows_refused", "gauge", "Flows that a host's switch does not take", ("host",))
DRIFTS = Metric("fleetswitch_host_drifts_total", "counter", "Changes of a host's flows by somebody else, since the "
                "controller knows the host", ("host",))  # fmt: skip
ASKED_IN_VAIN = Metric("fleetswitch_guests_requests_dropped_total", "counter", "What guests asked of DHCP and DNS, and "
                       "was dropped because it was more than their share", ("service",))  # fmt: skip
BGP_UP = Metric("fleetswitch_bgp_established", "gauge", "1 while BGP with a router is established", ("peer",))
BGP_ANNOUNCED = Metric("fleetswitch_bgp_announced_prefixes", "gauge", "Prefixes that a router was told", ("peer",))
BGP_RECEIVED = Metric("fleetswitch_bgp_received_prefixes_total", "counter", "Prefixes that a router told, which are "
                      "not used", ("peer",))  # fmt: skip
REQUESTS = Metric("fleetswitch_http_requests_total", "counter", "Requests by operationId (see /openapi.json; none: no "
                  "such path) and status", ("operation", "status"))  # fmt: skip
MEMORY = Metric("process_resident_memory_bytes", "gauge", "Memory that the process has")
CPU = Metric("process_cpu_seconds_total", "counter", "Processor time of the process, user and system")
START = Metric("process_start_time_seconds", "gauge", "When the process started, seconds since 1970")
DESCRIPTORS = Metric("process_open_fds", "gauge", "Open file descriptors")
MOST_DESCRIPTORS = Metric("process_max_fds", "gauge", "File descriptors that may be open")
THREADS = Metric("process_threads", "gauge", "Threads of the process")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
