"""The servers and the worker that `e2urec serve` starts on this machine, and `e2urec stop` ends."""
