"""Reference data: accounts and customers, what they allow, and the features that come of them."""
