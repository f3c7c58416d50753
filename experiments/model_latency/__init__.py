"""The latency study: whole models, routed, masked and merged."""
