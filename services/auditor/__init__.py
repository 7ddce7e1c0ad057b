"""The auditor: for a share of all cards every decision is made again, all the time, by code that shares nothing with the scorers."""
