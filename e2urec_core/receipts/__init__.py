"""Signed receipts of deletion requests: anybody can verify one offline, and only its subject can link it to a person."""
