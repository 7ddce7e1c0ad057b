"""Rules that analysts write: a subset of CEL, checked when it is saved, and run over columns.

``syntax`` reads text into a tree, ``vocabulary`` is what can be named, ``checking`` gives types and refuses, ``program`` turns trees
into one program for a whole rule set, ``machine`` runs it, ``rule_set`` is the document, ``engine`` decides which rules hit.
"""
