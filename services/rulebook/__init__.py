"""The rule sets from the side of people: save, put live, take back, and see which worker runs what."""
