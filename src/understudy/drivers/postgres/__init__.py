"""PostgreSQL 13 to 17: the driver, and what it is made of. Engine words (LSN, timeline, WAL) end in here."""
