"""From a YAML file to the core's values, all faults at once."""
