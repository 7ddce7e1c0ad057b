"""Offline: from history to a released model. Imports core, inference, data sets and the simulator; nothing online imports it."""
