"""How a model does on live traffic: whether its inputs drift, and what the labels say as they come."""
