"""The scorer: validate, enrich, score and act on card transactions."""
