"""What `e2urec doctor` looks at: small checks by topic, each of which gives one sentence and changes nothing."""
