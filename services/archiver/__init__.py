"""The archiver: topics into tables of the lake."""
