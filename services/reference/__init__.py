"""The reference service: keeps in the grid what is known of accounts and customers."""
