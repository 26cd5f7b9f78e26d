"""understudy: high availability for services."""
