"""Virtual-time mode: the protocol's own machines on a modelled network with calibrated costs."""
