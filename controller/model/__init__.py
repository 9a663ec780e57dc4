"""The kinds of objects, as pydantic models: the only schema, for files, REST and the store alike."""
